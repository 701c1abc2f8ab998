variable "name" {
  description = "What the names of everything begin with."
  type        = string
  default     = "private"
}

variable "ssh_public_key" {
  description = "Whoever has its other half logs in as root."
  type        = string
}

variable "package_url" {
  description = "Where the bastion fetches bastiond's .deb from. Empty with apt_source."
  type        = string
  default     = ""
}

variable "package_sha256" {
  description = "What sha256sum says of the .deb."
  type        = string
  default     = ""
}

variable "apt_source" {
  description = "A line as in sources.list that has bastiond, in place of package_url."
  type        = string
  default     = ""
}

variable "bastion_token" {
  description = "The API token for bastiond. Best left empty and brought by SSH: it would stay in Terraform's state and in the server's user data."
  type        = string
  default     = ""
  sensitive   = true
}

variable "network_range" {
  description = "The whole network's range. Its first address is Hetzner's gateway."
  type        = string
  default     = "10.0.0.0/16"
}

variable "network_zone" {
  description = "The zone of the location: eu-central for fsn1, nbg1 and hel1."
  type        = string
  default     = "eu-central"
}

variable "location" {
  description = "Where the servers are."
  type        = string
  default     = "fsn1"
}

variable "image" {
  description = "debian-12, debian-13 or ubuntu-24.04."
  type        = string
  default     = "debian-13"
}

variable "server_type" {
  description = "cx23 and its like, or cax11 and its like with an arm64 package."
  type        = string
  default     = "cx23"
}

variable "ssh_from" {
  description = "Who may reach the bastion's SSH."
  type        = list(string)
  default     = ["0.0.0.0/0", "::/0"]
}

variable "private_hosts" {
  description = "How many servers without public addresses are made."
  type        = number
  default     = 1
}
