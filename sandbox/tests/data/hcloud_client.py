"""Drives the official Python client: one command, its result as JSON on standard output.

usage: hcloud_client.py ENDPOINT TOKEN COMMAND [ARGUMENT ...]
"""

import json
import sys

from hcloud import APIException, Client
from hcloud.actions import ActionException
from hcloud.networks import NetworkRoute


def network(net):
    return {
        "id": net.id,
        "name": net.name,
        "ip_range": net.ip_range,
        "subnets": [[subnet.type, subnet.ip_range, subnet.network_zone, subnet.gateway] for subnet in net.subnets],
        "routes": [[route.destination, route.gateway] for route in net.routes],
        "servers": [server.id for server in net.servers],
    }


def ended(action):
    action.wait_until_finished()
    return {
        "command": action.command,
        "status": action.status,
        "progress": action.progress,
        "resources": [[resource["type"], resource["id"]] for resource in action.resources],
    }


def member(entry):
    return [entry.type, entry.id, entry.ip, entry.status, entry.alias_ips, entry.subnet]


def run(client, command, *args):
    net = client.networks.get_by_name(args[0]) if args else None
    if command == "networks":
        return [network(each) for each in client.networks.get_all()]
    if command == "network":
        return network(net)
    if command == "add-route":
        return ended(net.add_route(NetworkRoute(destination=args[1], gateway=args[2])))
    if command == "delete-route":
        return ended(net.delete_route(NetworkRoute(destination=args[1], gateway=args[2])))
    if command == "actions":
        return [[action.command, action.status] for action in net.get_actions()]
    if command == "members":
        return [member(each) for each in net.get_member_all()]
    if command == "alias-ips":
        return ended(client.servers.get_by_name(args[1]).change_alias_ips(net, list(args[2:])))
    if command == "private-net":
        server = client.servers.get_by_name(args[1])
        nets = [[each.network.id, each.ip, each.alias_ips, each.mac_address] for each in server.private_net]
        return {"location": server.location.name, "private_net": nets}
    if command == "assign":
        address, server = client.floating_ips.get_by_name(args[1]), client.servers.get_by_name(args[2])
        return ended(address.assign(server))
    raise SystemExit(f"unknown command {command}")


def main(endpoint, token, command, *args):
    client = Client(token=token, api_endpoint=endpoint, poll_interval=0.05)
    try:
        result = run(client, command, *args)
    except ActionException as error:
        result = {"action_error": error.action.error}
    except APIException as error:
        result = {"error": [error.code, error.message]}
    print(json.dumps(result))


main(*sys.argv[1:])
