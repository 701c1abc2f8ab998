//! The data plane: everything between the TUN interface and the UDP sockets, around boringtun's protocol core
//! ([`boringtun::noise::Tunn`]).

pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod icmp;
pub mod model;
pub mod packet;
pub mod segment;

#[cfg(test)]
mod sample;
pub mod uapi;

#[cfg(all(feature = "virtual-clock", not(test)))]
compile_error!("virtual-clock is for unit tests: with it the protocol's timers never run");
