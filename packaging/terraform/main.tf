# A network, its bastion, and servers without public addresses behind it, in Hetzner Cloud. docs/install.md explains the steps.
#
# bastiond adds the route 0.0.0.0/0 to the network and keeps it. Do not declare an hcloud_network_route for the same destination:
# two owners would replace each other's route again and again.

terraform {
  required_version = ">= 1.3"
  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.60"
    }
  }
}

# The token comes from HCLOUD_TOKEN.
provider "hcloud" {}

locals {
  cloud_init = "${path.module}/../cloud-init"

  # bastion.yaml with its place-holders filled in.
  packaged = replace(replace(replace(
    file("${local.cloud_init}/bastion.yaml"),
    "@PACKAGE_URL@", var.package_url),
    "@PACKAGE_SHA256@", var.package_sha256),
    "@APT_SOURCE@", var.apt_source
  )
  bastion = replace(local.packaged, "@HCLOUD_TOKEN@", var.bastion_token)
}

resource "hcloud_ssh_key" "admin" {
  name       = "${var.name}-admin"
  public_key = var.ssh_public_key
}

resource "hcloud_network" "private" {
  name     = var.name
  ip_range = var.network_range
}

resource "hcloud_network_subnet" "private" {
  network_id   = hcloud_network.private.id
  type         = "cloud"
  network_zone = var.network_zone
  ip_range     = local.subnet_range
}

# An optional second filter, for the public interface only: Hetzner's firewall does not see the private networks. bastiond's own
# rules allow the same; for a port forward or a service, both need a rule.
resource "hcloud_firewall" "bastion" {
  name = "${var.name}-bastion"

  rule {
    description = "SSH"
    direction   = "in"
    protocol    = "tcp"
    port        = "22"
    source_ips  = var.ssh_from
  }
  rule {
    description = "ping, and the errors that path MTU discovery needs"
    direction   = "in"
    protocol    = "icmp"
    source_ips  = ["0.0.0.0/0", "::/0"]
  }
  rule {
    description = "WireGuard"
    direction   = "in"
    protocol    = "udp"
    port        = "51820"
    source_ips  = ["0.0.0.0/0", "::/0"]
  }
}

resource "hcloud_server" "bastion" {
  name         = "${var.name}-bastion"
  image        = var.image
  server_type  = var.server_type
  location     = var.location
  ssh_keys     = [hcloud_ssh_key.admin.id]
  firewall_ids = [hcloud_firewall.bastion.id]
  user_data    = local.bastion

  public_net {
    ipv4_enabled = true
    ipv6_enabled = true
  }

  network {
    network_id = hcloud_network.private.id
    ip         = local.bastion_address
    # Without this line, each apply detaches the network and attaches it again.
    alias_ips = []
  }

  # A change of the user data would replace the server: an outage. Upgrade a running bastion by apt.
  lifecycle {
    ignore_changes = [user_data, ssh_keys, image]
  }

  depends_on = [hcloud_network_subnet.private]
}

resource "hcloud_server" "private" {
  count       = var.private_hosts
  name        = "${var.name}-host-${count.index + 1}"
  image       = var.image
  server_type = var.server_type
  location    = var.location
  ssh_keys    = [hcloud_ssh_key.admin.id]
  user_data   = file("${local.cloud_init}/private-host.yaml")

  public_net {
    ipv4_enabled = false
    ipv6_enabled = false
  }

  network {
    network_id = hcloud_network.private.id
    ip         = local.private_addresses[count.index]
    alias_ips  = []
  }

  lifecycle {
    ignore_changes = [user_data, ssh_keys, image]
  }

  # The bastion is created first, but its installation may still run: private hosts wait for their route.
  depends_on = [hcloud_network_subnet.private, hcloud_server.bastion]
}
