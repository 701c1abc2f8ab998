# The sizes of the network. scripts/check-terraform runs these without the provider; `terraform test` here runs them with it.

mock_provider "hcloud" {}

variables {
  ssh_public_key = "ssh-ed25519 AAAA"
}

run "a_slash_16_has_a_slash_24_for_its_servers" {
  command = plan
  assert {
    condition     = local.subnet_range == "10.0.0.0/24" && local.bastion_address == "10.0.0.2"
    error_message = "${local.subnet_range} ${local.bastion_address}"
  }
  assert {
    condition     = local.private_addresses == ["10.0.0.4"]
    error_message = join(" ", local.private_addresses)
  }
}

run "a_slash_24_is_its_own_subnet" {
  command = plan
  variables {
    network_range = "172.16.5.0/24"
    private_hosts = 251
  }
  assert {
    condition     = local.subnet_range == "172.16.5.0/24" && local.bastion_address == "172.16.5.2"
    error_message = "${local.subnet_range} ${local.bastion_address}"
  }
  assert {
    condition     = local.private_addresses[0] == "172.16.5.4" && local.private_addresses[250] == "172.16.5.254"
    error_message = join(" ", local.private_addresses)
  }
}

run "a_slash_20_has_a_slash_24" {
  command = plan
  variables {
    network_range = "192.168.16.0/20"
  }
  assert {
    condition     = local.subnet_range == "192.168.16.0/24"
    error_message = local.subnet_range
  }
}

run "a_slash_8_has_a_slash_24" {
  command = plan
  variables {
    network_range = "10.0.0.0/8"
  }
  assert {
    condition     = local.subnet_range == "10.0.0.0/24"
    error_message = local.subnet_range
  }
}

run "a_slash_25_is_refused" {
  command = plan
  variables {
    network_range = "10.0.0.0/25"
  }
  expect_failures = [var.network_range]
}

run "a_slash_7_is_refused" {
  command = plan
  variables {
    network_range = "10.0.0.0/7"
  }
  expect_failures = [var.network_range]
}

run "an_address_of_a_host_is_refused" {
  command = plan
  variables {
    network_range = "10.0.0.1/16"
  }
  expect_failures = [var.network_range]
}

run "a_range_that_reaches_beyond_the_private_ones_is_refused" {
  command = plan
  variables {
    network_range = "172.16.0.0/11"
  }
  expect_failures = [var.network_range]
}

run "a_public_range_is_refused" {
  command = plan
  variables {
    network_range = "203.0.113.0/24"
  }
  expect_failures = [var.network_range]
}

run "words_are_refused" {
  command = plan
  variables {
    network_range = "private"
  }
  expect_failures = [var.network_range]
}

run "more_servers_than_addresses_are_refused" {
  command = plan
  variables {
    private_hosts = 252
  }
  expect_failures = [var.private_hosts]
}
