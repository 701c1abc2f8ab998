//! NAT gateway, firewall and way in for private Hetzner Cloud networks.
//!
//! A level-triggered reconciler. [`config`] says what is wanted, [`site`] what this server is; each room ([`sysctl`], [`nat`],
//! [`hcloud`]) turns both into what its part of the world shall be, looks at what it is, and carries out the difference.
//! [`reconcile`] is one pass over the rooms, [`daemon`] the loop around it: a start, a reload, a kernel event, a stranger's
//! change and a timer all lead to the same pass. [`report`] is the one account of it, which [`control`], [`systemd`] and
//! [`operator`] tell.
#![forbid(unsafe_code)]

mod backoff;
pub mod cli;
pub mod component;
pub mod config;
pub mod conntrack;
pub mod control;
pub mod daemon;
pub mod drops;
pub mod error;
pub mod events;
pub mod exit;
pub mod hcloud;
pub mod hetzner;
pub mod http;
pub mod inputs;
pub mod nat;
pub mod net;
pub mod operator;
pub mod outcome;
pub mod reconcile;
pub mod report;
pub mod routes;
pub mod site;
pub mod state;
pub mod sysctl;
pub mod systemd;
pub mod wireguard;
