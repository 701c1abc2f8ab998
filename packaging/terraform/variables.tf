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
  description = "The range of the whole network, a private one from /8 to /24. Its first address is Hetzner's gateway, its first /24 the servers' subnet."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(regex("^(10|192\\.168|172\\.(1[6-9]|2[0-9]|3[01]))\\.[0-9.]+/([89]|1[0-9]|2[0-4])$", var.network_range))
    error_message = "Hetzner's networks are in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, and from /8 to /24 large, like 10.0.0.0/16."
  }
  validation {
    condition     = try(cidrhost(var.network_range, 0) == split("/", var.network_range)[0], false)
    error_message = "This is no network: after the given number of bits, all bits must be zero, as in 10.0.0.0/16."
  }
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

  validation {
    # The subnet has 254 addresses. The first four are the gateway's, the bastion's, and free.
    condition     = var.private_hosts >= 0 && var.private_hosts <= 251 && floor(var.private_hosts) == var.private_hosts
    error_message = "The subnet has room for 0 to 251 servers without public addresses."
  }
}
