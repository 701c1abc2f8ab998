//! NAT gateway, firewall and VPN entry for private Hetzner Cloud networks.
//!
//! A level-triggered reconciler. `config` says what is wanted, `site` what this server is. Each component (`nat`,
//! `wireguard`, `hcloud` …) observes its part of the world, plans what differs from what is wanted, and applies the
//! plan. `reconcile` is one pass over the components, `daemon` the loop around it: a start, a reload, a kernel event
//! and a timer all start the same pass. `report` is the account of it, which the control socket, systemd and
//! `bastionctl` show. `docs/architecture.md` draws the layers.
//!
//! The programs use what is exported here; everything else is private, so that the compiler finds dead code.
#![forbid(unsafe_code)]

mod backoff;
pub mod cli;
mod component;
mod config;
mod conntrack;
mod control;
mod daemon;
mod drops;
mod error;
mod events;
pub mod exit;
mod fastpath;
mod hcloud;
mod health;
mod hetzner;
mod http;
mod inputs;
mod nat;
mod net;
mod nflog;
mod operator;
mod outcome;
mod own_file;
mod printable;
mod reconcile;
mod regular_file;
mod report;
mod routes;
mod rtnetlink_connection;
mod site;
mod state;
mod sysctl;
mod systemd;
mod wireguard;

pub use config::{Environment, Fallback, start as start_configuration};
pub use daemon::{run as run_daemon, run_boot};
pub use error::chain;
pub use fastpath::{LoadError as FastpathLoadError, Owner as FastpathOwner, load as load_fastpath};
pub use operator::run as run_operator;
pub use outcome::ComponentError;
pub use site::record_ssh_ports;
pub use sysctl::saved_settings;
pub use systemd::{inherited_descriptors, start_logging};

/// What tests, benchmarks and fuzz targets use besides the programs' interface. It may change at any time.
#[doc(hidden)]
pub mod internals {
    #![allow(missing_docs, reason = "each item is documented where it is defined")]

    pub mod access {
        pub use crate::inputs::{Grant, PeerRights, Reacher, Target, rights_of, who_can_reach};
    }
    pub mod component {
        pub use crate::component::{Component, preview, reconcile};
    }
    pub mod config {
        pub use crate::config::{
            Acl, BackendChoice, Config, Environment, Fastpath, Forward, Ports, Protocol, Secret, Service, Transports,
            parse,
        };
    }
    pub mod conntrack {
        pub use crate::conntrack::{
            BlockReason, Conntrack, EndReason, Error, Flow, FlowDeleter, Layer4, Permission, Policy, PolicyEvaluator,
            Status, Tuple, count_events, encode_flow, find_flow, for_each_flow, observe_counters, parse_flow,
            read_answer,
        };
    }
    pub mod control {
        pub use crate::control::{Request, parse_request, read_request};
    }
    pub mod drops {
        pub use crate::drops::{Dropped, read};
    }
    pub mod hcloud {
        pub use crate::hcloud::{Hcloud, SeenRoutes};
        pub mod api {
            pub use crate::hcloud::api::{parse_error_body, parse_network};
        }
    }
    pub mod health {
        pub use crate::health::{
            Change, Engine, INTERVAL, MISSES, Now, Outcome, PROMPT_TURNS, Path, PathReport, PathState, Proven,
            RETRY_INTERVAL, ROUND_TIMEOUT, TURN, WantedPath,
        };
    }
    pub mod hetzner {
        pub use crate::hetzner::unroutable;
    }
    pub mod inputs {
        pub use crate::inputs::{Inputs, JOURNAL_GROUP, SeenReturnRoutes, Tunnel, tunnel};
    }
    pub mod nat {
        pub use crate::nat::{
            FirewallReport, ForwardPath, LoadedRules, Nat, Packets, Sources, boot_commands, changes_rules,
            concerns_our_table, counters_in, forward_paths, judge_listings, load_boot_rules,
        };
    }
    pub mod net {
        pub use crate::net::{InterfaceName, NetworkId, v4};
    }
    pub mod outcome {
        pub use crate::outcome::{ComponentName, Outcome, Problem, State};
    }
    pub mod report {
        pub use crate::report::{ComponentReport, Health, Report};
    }
    pub mod routes {
        pub use crate::routes::Routes;
    }
    pub mod site {
        pub use crate::site::{
            OtherRoute, PrivateLink, PublicLink, SeenOtherRoutes, Site, add_ranges_behind, sshd_includes, sshd_ports_in,
        };
        pub mod metadata {
            pub use crate::site::metadata::parse_private_networks;
        }
    }
    pub mod sysctl {
        pub use crate::sysctl::saved_settings_of;
    }
    pub mod wireguard {
        pub use crate::wireguard::BackendKind;
        pub mod kernel {
            pub use crate::wireguard::kernel::{Error, Made, choose, is_available, make, remove, set, snapshot};
        }
        pub mod status {
            pub use crate::wireguard::status::PeerReport;
        }
    }
}
