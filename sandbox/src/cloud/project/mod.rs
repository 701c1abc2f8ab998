//! The one project of the cloud: its resources, and what takes time, runs out or goes wrong. Everything here is behind
//! the one lock of [`cloud::Cloud`]; the clock is passed in.

pub(crate) mod actions;
pub(crate) mod clock;
pub(crate) mod cloud;
pub(crate) mod faults;
pub(crate) mod rate_limit;
pub(crate) mod settings;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use ipnet::Ipv4Net;

use crate::cloud::model::attachments;
use crate::cloud::model::ids::{NetworkId, ServerId};
use crate::cloud::model::refusal::Refusal;
use crate::cloud::model::resources::{Attachment, Resources};

/// The first octet of the MAC address of a private interface (udev rules of Hetzner's hc-utils).
const PRIVATE_MAC_PREFIX: u8 = 0x86;
/// The first octet of the MAC address of a public interface (as above).
const PUBLIC_MAC_PREFIX: u8 = 0x96;

/// A project of the Hetzner Cloud. A token belongs to a project, and its clients share one rate limit.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) settings: settings::Settings,
    /// The resources in effect, in the data plane too. GET shows [`actions::ActionLog::visible`] of them.
    pub(crate) resources: Resources,
    pub(crate) actions: actions::ActionLog,
    pub(crate) bucket: rate_limit::Bucket,
    pub(crate) faults: faults::Faults,
    pub(crate) requests: Vec<RequestRecord>,
    /// Attachments that the metadata service does not show yet.
    pub(crate) hidden: BTreeSet<(ServerId, NetworkId)>,
    /// How long the metadata service takes to answer.
    pub(crate) metadata_delay: Duration,
    last_id: u64,
    last_mac: u32,
}

/// A request to the API, answered or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// When the request had arrived completely.
    pub at: SystemTime,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, with `/v1`.
    pub path: String,
    /// The text after the `?`, as sent.
    pub query: Option<String>,
    /// The status of the answer; `None` when a fault kept the answer back.
    pub status: Option<u16>,
    /// The client's `User-Agent` header.
    pub user_agent: Option<String>,
    /// The body, as text.
    pub body: String,
}

impl Project {
    pub(crate) fn new(settings: settings::Settings, now: SystemTime) -> Self {
        Self {
            bucket: rate_limit::Bucket::full(settings.rate_limit, now),
            settings,
            resources: Resources::default(),
            actions: actions::ActionLog::default(),
            faults: faults::Faults::default(),
            requests: Vec::new(),
            hidden: BTreeSet::new(),
            metadata_delay: Duration::ZERO,
            last_id: 1_000_000,
            last_mac: 0,
        }
    }

    /// Ends the actions that are due.
    pub(crate) fn settle(&mut self, now: SystemTime) {
        self.actions.settle(&mut self.resources, now);
    }

    /// An id that no resource of this project has had.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The MAC address of a new public interface.
    pub(crate) fn next_public_mac(&mut self) -> String {
        self.next_mac(PUBLIC_MAC_PREFIX)
    }

    /// A new attachment of a server to a network. Without `ip` the server gets the lowest free address, of the subnet
    /// `ip_range` if that is given.
    pub(crate) fn new_attachment(
        &mut self,
        server: ServerId,
        network: NetworkId,
        ip: Option<Ipv4Addr>,
        ip_range: Option<Ipv4Net>,
        alias_ips: Vec<Ipv4Addr>,
    ) -> Result<Attachment, Refusal> {
        let interface_num = self.resources.server(server)?.next_interface_num();
        let visible = self.actions.visible(&self.resources);
        let ip = match (ip, ip_range) {
            (Some(ip), Some(range)) if !range.contains(&ip) => return Err(Refusal::IpOutside { ip, range }),
            (Some(ip), _) => ip,
            (None, range) => attachments::first_free(&visible, visible.network(network)?, range)?,
        };
        let mac_address = self.next_mac(PRIVATE_MAC_PREFIX);
        Ok(Attachment { network, ip, alias_ips, mac_address, interface_num })
    }

    fn next_mac(&mut self, prefix: u8) -> String {
        self.last_mac += 1;
        let [_, a, b, c] = self.last_mac.to_be_bytes();
        format!("{prefix:02x}:00:00:{a:02x}:{b:02x}:{c:02x}")
    }

    pub(crate) fn update_settings(&mut self, change: impl FnOnce(&mut settings::Settings), now: SystemTime) {
        let before = self.settings.rate_limit;
        change(&mut self.settings);
        if self.settings.rate_limit != before {
            self.bucket = rate_limit::Bucket::full(self.settings.rate_limit, now);
        }
    }
}
