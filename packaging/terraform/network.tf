# The arithmetic of the addresses, apart from the resources, so that scripts/check-terraform can test it without a provider.

locals {
  network_bits = tonumber(split("/", var.network_range)[1])

  # The servers' subnet: the first /24 of the network, or all of a network that is a /24 itself, which is Hetzner's smallest.
  subnet_range = cidrsubnet(var.network_range, max(24 - local.network_bits, 0), 0)

  # The first address of the network is Hetzner's gateway.
  bastion_address   = cidrhost(local.subnet_range, 2)
  private_addresses = [for index in range(var.private_hosts) : cidrhost(local.subnet_range, 4 + index)]
}
