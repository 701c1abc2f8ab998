//! Asks the kernel's own route lookup, with all its tables and rules. Nothing is sent.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use nix::libc;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::selected::Selected;
use super::{Answer, Forwarded, Question, Way};
use crate::site::route::Route;

/// Asks all questions. Where an answer is not the expected one, the route that it comes from is asked for, too.
pub(super) async fn look_up(handle: &Handle, questions: Vec<Question>) -> Vec<Way> {
    let mut ways = Vec::with_capacity(questions.len());
    for question in questions {
        let answer = answer(ask(handle, &question, RouteFlags::LookupTable).await, question.forwarded.is_some());
        let route = match answer {
            Answer::Leaves(interface) if interface != question.interface => {
                let matched = ask(handle, &question, RouteFlags::LookupTable | RouteFlags::FibMatch).await;
                matched.ok().flatten().as_ref().and_then(Route::from_message)
            }
            _ => None,
        };
        ways.push(Way { question, answer, route });
    }
    ways
}

async fn ask(
    handle: &Handle,
    question: &Question,
    flags: RouteFlags,
) -> Result<Option<RouteMessage>, rtnetlink::Error> {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(question.to, 32);
    if let Some(Forwarded { from, by }) = question.forwarded {
        builder = builder.source_prefix(from, 32).input_interface(by);
    }
    let mut message = builder.build();
    let Selected { mark, protocol, source_port, destination_port, tos } = question.selected;
    message.header.tos = tos;
    message.attributes.extend(mark.map(RouteAttribute::Mark));
    message.attributes.extend(protocol.map(RouteAttribute::IpProto));
    message.attributes.extend(source_port.map(RouteAttribute::Sport));
    message.attributes.extend(destination_port.map(RouteAttribute::Dport));
    message.header.flags = flags;
    handle.route().get(message).execute().try_next().await
}

/// What the kernel answers. It names an error where a rule or a route leads nowhere (`fib_props` in the kernel's
/// `net/ipv4/fib_semantics.c`), and others for packets that it would not take in the first place.
fn answer(answer: Result<Option<RouteMessage>, rtnetlink::Error>, is_forwarded: bool) -> Answer {
    match answer {
        Ok(Some(message)) if message.header.kind == RouteType::Unicast => {
            let out = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            out.map_or(Answer::Unknown, Answer::Leaves)
        }
        Err(rtnetlink::Error::NetlinkError(error)) => match error.raw_code().abs() {
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL => Answer::Nowhere,
            // EXDEV: the source cannot come from that interface.
            error => {
                tracing::debug!(component = "site", error, is_forwarded, "a route lookup is not answered");
                Answer::Unknown
            }
        },
        Ok(_) | Err(_) => Answer::Unknown,
    }
}
