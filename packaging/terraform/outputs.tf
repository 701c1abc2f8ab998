output "bastion" {
  description = "Log in with: ssh root@…"
  value       = hcloud_server.bastion.ipv4_address
}

output "private_hosts" {
  description = "Log in through the bastion: ssh -J root@BASTION root@HOST"
  value       = [for host in hcloud_server.private : one(host.network).ip]
}
