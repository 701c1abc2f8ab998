//! Another program that changes the routes of the project.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::model::ids::NetworkId;
use super::model::resources::Network;
use super::model::resources::Route;
use super::model::routes;
use super::project::cloud::Cloud;

impl Cloud {
    /// Starts a Kubernetes route controller for a network, as hcloud-cloud-controller-manager runs it. In every period
    /// it deletes the routes inside its cluster CIDR that do not belong to its nodes, and adds the missing ones that
    /// the network accepts. It ends when the handle is dropped, or after `max_passes`.
    ///
    /// A route is inside the CIDR if its first or its last address is (kubernetes/cloud-provider,
    /// `isResponsibleForRoute`). A default route is outside of every private CIDR.
    pub fn spawn_route_controller(
        &self,
        network: NetworkId,
        cluster_cidr: Ipv4Net,
        nodes: Vec<Route>,
        period: Duration,
        max_passes: u32,
    ) -> RouteController {
        let (stop, stopped) = channel();
        let cloud = self.clone();
        let passes = move || {
            for _ in 0..max_passes {
                cloud.route_controller_pass(network, cluster_cidr, &nodes);
                if stopped.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        RouteController { stop: Some(stop), thread: Some(std::thread::spawn(passes)) }
    }

    fn route_controller_pass(&self, network: NetworkId, cluster_cidr: Ipv4Net, nodes: &[Route]) {
        self.with_project(|project, _| {
            if let Some(network) = project.resources.networks.get_mut(&network) {
                pass(network, cluster_cidr, nodes);
            }
        });
    }
}

/// One pass of a route controller over its network.
fn pass(network: &mut Network, cluster_cidr: Ipv4Net, nodes: &[Route]) {
    let is_responsible = |route: &Route| {
        let destination = route.destination;
        cluster_cidr.contains(&destination.network()) || cluster_cidr.contains(&destination.broadcast())
    };
    network.routes.retain(|route| !is_responsible(route) || nodes.contains(route));
    for node in nodes {
        // A route that exists overlaps with itself and is not added again.
        if routes::check(network, node).is_ok() {
            network.routes.push(*node);
        }
    }
}

/// A running route controller. Dropping the value stops it.
#[derive(Debug)]
pub struct RouteController {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RouteController {
    /// Stops it and waits for the end of its current pass.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for RouteController {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is on stderr already; a second one would hide the test's own.
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::model::samples::{network, route};

    #[test]
    fn a_route_controller_changes_only_routes_inside_its_cluster_cidr() {
        let cluster: Ipv4Net = "10.244.0.0/16".parse().unwrap();
        let nodes = ["10.244.1.0/24 via 10.0.0.4", "10.244.2.0/24 via 10.0.0.5"].map(route);
        let before = [
            "0.0.0.0/0 via 10.0.0.2",      // outside
            "10.244.1.0/24 via 10.0.0.4",  // a node's
            "10.244.9.0/24 via 10.0.0.2",  // a tunnel's, inside the cluster
            "10.8.0.0/24 via 10.0.0.2",    // a tunnel's, outside
            "10.244.2.0/24 via 10.0.0.9",  // a node's, by the wrong gateway
            "192.168.0.0/16 via 10.0.0.2", // outside
        ]
        .map(route);
        let after = [
            "0.0.0.0/0 via 10.0.0.2",
            "10.244.1.0/24 via 10.0.0.4",
            "10.8.0.0/24 via 10.0.0.2",
            "192.168.0.0/16 via 10.0.0.2",
            "10.244.2.0/24 via 10.0.0.5",
        ]
        .map(route);
        let mut network = network("10.0.0.0/8", &[]);
        network.routes = before.into();
        for _ in 0..2 {
            pass(&mut network, cluster, &nodes);
            assert_eq!(network.routes, after);
        }
    }

    #[test]
    fn a_route_controller_works_until_it_is_stopped() {
        let cloud = Cloud::default();
        let network = cloud.create_network("private", "10.0.0.0/8".parse().unwrap(), &[]);
        let cluster: Ipv4Net = "10.244.0.0/16".parse().unwrap();
        let (vpn, node) = (route("10.244.9.0/24 via 10.0.0.2"), route("10.244.1.0/24 via 10.0.0.4"));
        let add_vpn = || cloud.put_route(network, vpn.destination, vpn.gateway);
        add_vpn();
        let controller = cloud.spawn_route_controller(network, cluster, vec![node], Duration::from_millis(1), 10_000);
        let settled = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            cloud.routes(network) == [node]
        });
        assert!(settled, "{:?}", cloud.routes(network));
        controller.stop();
        add_vpn();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(cloud.routes(network), [node, vpn]);
    }
}
