//! Filters of clsact, by route netlink. A filter keeps its program in the kernel after its maker has
//! ended.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkLayerType};
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::Error;
use super::model::{Filter, HANDLE, Hook, LinkIndex, ProgramId, Qdisc};
use crate::net::InterfaceName;
use crate::rtnetlink_connection::RtnetlinkConnection;

/// `ETH_P_ALL` in network byte order: a filter for every packet.
const EVERY_PROTOCOL: u16 = 3_u16.to_be();
/// The program's own verdict counts (`TCA_BPF_FLAG_ACT_DIRECT`).
const DIRECT_ACTION: u32 = 1;

/// A conversation with the kernel; it ends when dropped.
pub(super) struct Netlink(RtnetlinkConnection);

impl Netlink {
    pub(super) fn open() -> Result<Self, Error> {
        RtnetlinkConnection::open().map(Self).map_err(Error::Open)
    }

    /// The Ethernet links.
    pub(super) async fn links(&self) -> Result<BTreeMap<InterfaceName, LinkIndex>, Error> {
        let listed = self.0.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|source| Error::List { what: "links", source })?;
        let ethernet = listed.into_iter().filter(|link| link.header.link_layer_type == LinkLayerType::Ether);
        Ok(ethernet
            .filter_map(|link| {
                let name = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => name.parse().ok(),
                    _ => None,
                });
                Some((name?, LinkIndex(link.header.index)))
            })
            .collect())
    }

    /// The links with a place for filters.
    pub(super) async fn qdiscs(&self) -> Result<BTreeMap<LinkIndex, Qdisc>, Error> {
        let listed = self.0.handle.qdisc().get().execute().try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|source| Error::List { what: "queueing disciplines", source })?;
        Ok(listed
            .iter()
            .filter_map(|qdisc| {
                let kind = match kind(qdisc)? {
                    "clsact" => Qdisc::Clsact,
                    "ingress" => Qdisc::Ingress,
                    _ => return None,
                };
                Some((index_of(qdisc)?, kind))
            })
            .collect())
    }

    /// The filters of these links.
    pub(super) async fn filters(&self, links: impl Iterator<Item = LinkIndex>) -> Result<Vec<Filter>, Error> {
        let mut filters = BTreeSet::new();
        for link in links {
            for hook in Hook::ALL {
                let Ok(index) = i32::try_from(link.0) else { continue };
                let request = self.0.handle.traffic_filter(index).get();
                let request = match hook {
                    Hook::Ingress => request.ingress(),
                    Hook::Egress => request.egress(),
                };
                let listed = request.execute().try_collect::<Vec<_>>().await;
                let listed = listed.map_err(|source| Error::List { what: "filters", source })?;
                filters.extend(listed.iter().filter_map(|message| read_filter(message, link, hook)));
            }
        }
        Ok(filters.into_iter().collect())
    }

    /// Makes a place for filters at a link.
    pub(super) async fn add_clsact(&self, link: LinkIndex) -> Result<(), rtnetlink::Error> {
        let mut message = message(link, TcHandle::CLSACT);
        message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        self.request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Removes the place with all filters in it.
    pub(super) async fn remove_clsact(&self, link: LinkIndex) -> Result<(), rtnetlink::Error> {
        let mut message = message(link, TcHandle::CLSACT);
        message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        self.request(RouteNetlinkMessage::DelQueueDiscipline(message), 0).await
    }

    /// Makes our filter at a place, or gives it another program, without a moment between the two.
    pub(super) async fn attach(
        &self,
        link: LinkIndex,
        hook: Hook,
        program: BorrowedFd<'_>,
    ) -> Result<(), rtnetlink::Error> {
        let mut message = message(link, parent(hook));
        message.header.handle = TcHandle::from(HANDLE);
        message.header.info = u32::from(hook.priority()) << 16 | u32::from(EVERY_PROTOCOL);
        let descriptor = u32::try_from(program.as_raw_fd()).expect("an open descriptor is no negative number");
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        message.attributes.push(TcAttribute::Options(
            [
                TcFilterBpfOption::ProgFd(descriptor),
                TcFilterBpfOption::ProgName(hook.filter_name().to_owned()),
                TcFilterBpfOption::Flags(TcBpfFlags::from_bits_retain(DIRECT_ACTION)),
            ]
            .map(TcOption::Bpf)
            .into(),
        ));
        self.request(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE).await
    }

    /// Removes a filter.
    pub(super) async fn detach(&self, filter: &Filter) -> Result<(), rtnetlink::Error> {
        let mut message = message(filter.link, parent(filter.hook));
        message.header.handle = TcHandle::from(filter.handle);
        message.header.info = u32::from(filter.priority) << 16 | u32::from(EVERY_PROTOCOL);
        message.attributes.push(TcAttribute::Kind(filter.kind.clone()));
        self.request(RouteNetlinkMessage::DelTrafficFilter(message), 0).await
    }

    async fn request(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), rtnetlink::Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.0.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn message(link: LinkIndex, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    // The kernel's indices are positive.
    message.header.index = i32::try_from(link.0).unwrap_or_default();
    message.header.parent = parent;
    message
}

fn parent(hook: Hook) -> TcHandle {
    let minor = match hook {
        Hook::Ingress => TcHandle::MIN_INGRESS,
        Hook::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

fn index_of(message: &TcMessage) -> Option<LinkIndex> {
    u32::try_from(message.header.index).ok().map(LinkIndex)
}

/// `None` for the entry that stands for a whole priority.
fn read_filter(message: &TcMessage, link: LinkIndex, hook: Hook) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    if index_of(message)? != link || handle == 0 {
        return None;
    }
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    let kind = kind(message)?.to_owned();
    let mut filter = Filter { link, hook, priority, handle, kind, name: None, program: None };
    for attribute in &message.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name.clone()),
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(ProgramId(*id)),
                _ => {}
            }
        }
    }
    Some(filter)
}
