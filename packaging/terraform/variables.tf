variable "name" {
  description = "Prefix of all names."
  type        = string
  default     = "private"
}

variable "ssh_public_key" {
  description = "Public SSH key. The owner of its private key can log in as root."
  type        = string
}

variable "package_url" {
  description = "URL of bastiond's .deb. Empty if apt_source is set."
  type        = string
  default     = ""
}

variable "package_sha256" {
  description = "SHA-256 checksum of the .deb."
  type        = string
  default     = ""
}

variable "apt_source" {
  description = "An apt source with bastiond, one line as in sources.list, in place of package_url."
  type        = string
  default     = ""
}

variable "bastion_token" {
  description = "The API token for bastiond. Better leave it empty and bring the token by SSH: it would stay in Terraform's state and in the server's user data."
  type        = string
  default     = ""
  sensitive   = true
}

variable "network_range" {
  description = "The range of the whole network. Its first address is Hetzner's gateway."
  type        = string
  default     = "10.0.0.0/16"
}

variable "network_zone" {
  description = "The zone of the location: eu-central for fsn1, nbg1 and hel1."
  type        = string
  default     = "eu-central"
}

variable "location" {
  description = "Location of the servers."
  type        = string
  default     = "fsn1"
}

variable "image" {
  description = "debian-12, debian-13 or ubuntu-24.04."
  type        = string
  default     = "debian-13"
}

variable "server_type" {
  description = "Server type: cx23 or similar, or cax11 or similar with an arm64 package."
  type        = string
  default     = "cx23"
}

variable "ssh_from" {
  description = "Addresses and ranges that may reach the bastion's SSH."
  type        = list(string)
  default     = ["0.0.0.0/0", "::/0"]
}

variable "private_hosts" {
  description = "Number of servers without public addresses."
  type        = number
  default     = 1
}
