//! The routes that networks were last seen to have, as plain values for other components.

use super::model::{CloudRoute, NetworkTable};
use crate::inputs::SeenReturnRoutes;
use crate::net::InterfaceName;
use crate::site::{OtherRoute, PrivateLink, SeenOtherRoutes};

/// By private link, the routes of its network besides `0.0.0.0/0`. A network that was never read is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenRoutes {
    /// The ranges that are sent to this server: hosts there can answer peers in these ranges.
    pub here: SeenReturnRoutes,
    /// The routes to other servers.
    pub elsewhere: SeenOtherRoutes,
}

impl SeenRoutes {
    /// Takes over what a network has now.
    pub(super) fn insert(&mut self, table: &NetworkTable, link: &PrivateLink) {
        let routes = table.routes.iter().filter(|route| route.destination.prefix_len() > 0);
        let (here, elsewhere): (Vec<&CloudRoute>, Vec<&CloudRoute>) =
            routes.partition(|route| link.holds(route.gateway));
        let other = |route: &CloudRoute| OtherRoute { destination: route.destination, gateway: route.gateway };
        self.here.insert(link.interface.clone(), here.into_iter().map(|route| route.destination).collect());
        self.elsewhere.insert(link.interface.clone(), elsewhere.into_iter().map(other).collect());
    }

    /// Forgets the networks of links that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&InterfaceName) -> bool) {
        self.here.retain(|interface, _| is_there(interface));
        self.elsewhere.retain(|interface, _| is_there(interface));
    }
}
