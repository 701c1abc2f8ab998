use proptest::prelude::*;

use super::super::model::{Counters, ProgramId};
use super::*;
use crate::component::Plan as _;

const ETH0: LinkIndex = LinkIndex(2);
const ETH1: LinkIndex = LinkIndex(3);
const OTHER: LinkIndex = LinkIndex(9);

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn wanted() -> Wanted {
    Wanted::Links { links: [name("eth0"), name("eth1")].into(), needs_every_packet: Vec::new() }
}

fn loaded() -> Loaded {
    Loaded { forward: ProgramId(11), learn: ProgramId(12), generation: Generation(5), counters: Counters::default() }
}

fn filter(link: LinkIndex, hook: Hook, program: u32) -> Filter {
    Filter {
        link,
        hook,
        priority: hook.priority(),
        handle: HANDLE,
        kind: "bpf".to_owned(),
        name: Some(hook.filter_name().to_owned()),
        program: Some(ProgramId(program)),
    }
}

fn stranger(link: LinkIndex, hook: Hook, priority: u16) -> Filter {
    Filter { priority, handle: 1, name: Some("cilium".to_owned()), ..filter(link, hook, 7) }
}

/// Two links, programs that are loaded, and nothing at the links.
fn bare() -> Observed {
    Observed {
        loaded: Some(loaded()),
        links: [(name("eth0"), ETH0), (name("eth1"), ETH1), (name("docker0"), OTHER)].into(),
        is_tracking_liberal: true,
        ..Observed::default()
    }
}

/// Everything stands.
fn standing() -> Observed {
    let filters =
        [ETH0, ETH1].into_iter().flat_map(|link| [filter(link, Hook::Ingress, 11), filter(link, Hook::Egress, 12)]);
    Observed {
        filters: filters.collect(),
        qdiscs: [(ETH0, Qdisc::Clsact), (ETH1, Qdisc::Clsact)].into(),
        made_qdiscs: [ETH0, ETH1].into(),
        ..bare()
    }
}

/// What stands after a plan was carried out.
fn carried_out(observed: &Observed, plan: &Plan) -> Observed {
    let mut after = observed.clone();
    after.filters.retain(|filter| !plan.detach.contains(filter));
    for link in &plan.remove_qdiscs {
        after.qdiscs.remove(link);
        after.filters.retain(|filter| filter.link != *link);
    }
    after.made_qdiscs.retain(|link| !plan.remove_qdiscs.contains(link) && !plan.forget_qdiscs.contains(link));
    after.made_qdiscs.extend(&plan.add_qdiscs);
    after.qdiscs.extend(plan.add_qdiscs.iter().map(|link| (*link, Qdisc::Clsact)));
    for Attachment { link, hook, .. } in &plan.attach {
        let program = after.loaded.unwrap().program(*hook).0;
        let new = filter(*link, *hook, program);
        after.filters.retain(|old| (old.link, old.hook, old.priority) != (new.link, new.hook, new.priority));
        after.filters.push(new);
    }
    after.other_versions.retain(|version| !plan.remove_versions.contains(version));
    if let Some(loaded) = &mut after.loaded {
        match plan.turn {
            Turn::Keep => {}
            Turn::Raise => loaded.generation = loaded.generation.next(),
            Turn::Off => loaded.generation = Generation::OFF,
        }
    }
    if plan.remove_this_version {
        after.loaded = None;
    }
    after
}

#[test]
fn the_learner_is_attached_before_the_carrier_and_entries_count_last() {
    let plan = plan(&wanted(), &bare(), false);
    let hooks: Vec<Hook> = plan.attach.iter().map(|place| place.hook).collect();
    assert_eq!(hooks, [Hook::Egress, Hook::Egress, Hook::Ingress, Hook::Ingress]);
    assert_eq!((plan.turn, plan.add_qdiscs.clone()), (Turn::Raise, [ETH0, ETH1].into()));
    assert_eq!(carried_out(&bare(), &plan).filters.len(), standing().filters.len());
}

#[test]
fn what_stands_stays_and_a_change_raises_the_generation_alone() {
    assert_eq!(plan(&wanted(), &standing(), false), Plan::nothing());
    assert_eq!(plan(&wanted(), &standing(), true), Plan { turn: Turn::Raise, ..Plan::nothing() });
}

#[test]
fn a_detached_program_is_attached_again_and_another_version_is_replaced_in_place() {
    let mut observed = standing();
    observed.filters.remove(0);
    let healed = plan(&wanted(), &observed, false);
    assert_eq!(healed.steps(), ["attach to ingress of eth0"]);
    let mut observed = standing();
    observed.filters.iter_mut().for_each(|filter| filter.program = Some(ProgramId(1)));
    let replaced = plan(&wanted(), &observed, false);
    assert_eq!((replaced.detach.len(), replaced.attach.len()), (0, 4));
}

#[test]
fn without_programs_of_this_version_those_of_another_do_not_carry_on() {
    let observed = Observed { loaded: None, ..standing() };
    let plan = plan(&wanted(), &observed, false);
    assert_eq!((plan.request, plan.detach.len(), plan.attach.len()), (true, 4, 0));
    assert_eq!(plan.problems()[0].code, "fastpath-not-loaded");
}

#[test]
fn others_that_need_every_packet_make_it_stand_aside() {
    let cases: [(&str, Observed); 5] = [
        ("tcp_be_liberal is not 1", Observed { is_tracking_liberal: false, ..standing() }),
        ("tcx of eth1", Observed { tcx: [ETH1].into(), ..standing() }),
        ("eth0 has an ingress qdisc", Observed { qdiscs: [(ETH0, Qdisc::Ingress)].into(), ..bare() }),
        ("priority 65535 stands at ingress of eth0", with(stranger(ETH0, Hook::Ingress, u16::MAX))),
        ("priority 1 stands at egress of eth1", with(stranger(ETH1, Hook::Egress, 1))),
    ];
    for (reason, observed) in cases {
        let plan = plan(&wanted(), &observed, false);
        assert!(plan.aside.iter().any(|aside| aside.contains(reason)), "{reason}: {:?}", plan.aside);
        assert_eq!((plan.turn, plan.attach.len()), (Turn::Off, 0), "{reason}");
        let after = carried_out(&observed, &plan);
        assert!(!after.filters.iter().any(Filter::is_ours), "{reason}");
    }
    // Filters before ours at the ingress, and after ours at the egress, see carried packets too.
    let beside =
        [stranger(ETH0, Hook::Ingress, 10), stranger(ETH0, Hook::Egress, 10), stranger(OTHER, Hook::Egress, 1)];
    for filter in beside {
        assert_eq!(plan(&wanted(), &with(filter), false), Plan::nothing());
    }
    let chain = Wanted::Links { links: [name("eth0")].into(), needs_every_packet: vec!["a chain".to_owned()] };
    assert_eq!(plan(&chain, &standing(), false).aside, ["a chain"]);
}

fn with(filter: Filter) -> Observed {
    let mut observed = standing();
    observed.filters.push(filter);
    observed
}

#[test]
fn everything_of_ours_is_taken_away_and_strangers_keep_the_place_that_they_use() {
    let observed = Observed { other_versions: ["old".to_owned()].into(), ..with(stranger(ETH0, Hook::Ingress, 10)) };
    let plan = plan(&Wanted::Nothing, &observed, false);
    let after = carried_out(&observed, &plan);
    assert_eq!(after.filters, [stranger(ETH0, Hook::Ingress, 10)]);
    assert_eq!(after.qdiscs, [(ETH0, Qdisc::Clsact)].into());
    assert_eq!((after.loaded, after.made_qdiscs, after.other_versions), (None, [].into(), [].into()));
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let link = prop::sample::select(vec![ETH0, ETH1, OTHER]);
    let hook = prop::sample::select(vec![Hook::Ingress, Hook::Egress]);
    (link, hook, 10_u16..50_000, 10_u32..13, any::<bool>()).prop_map(|(link, hook, priority, program, is_ours)| {
        if is_ours { filter(link, hook, program) } else { stranger(link, hook, priority) }
    })
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let links = || prop::collection::btree_set(prop::sample::select(vec![ETH0, ETH1, OTHER]), 0..4);
    let filters = prop::collection::vec(any_filter(), 0..6);
    (filters, links(), links(), any::<bool>(), 0_u32..3, any::<bool>()).prop_map(
        |(mut filters, qdiscs, made_qdiscs, is_loaded, generation, has_old)| {
            // A place holds one filter.
            let mut places = BTreeSet::new();
            filters.retain(|filter| {
                qdiscs.contains(&filter.link)
                    && places.insert((filter.link, filter.hook, filter.priority, filter.handle))
            });
            Observed {
                loaded: is_loaded.then(|| Loaded { generation: Generation(generation), ..loaded() }),
                other_versions: has_old.then(|| "old".to_owned()).into_iter().collect(),
                qdiscs: qdiscs.into_iter().map(|link| (link, Qdisc::Clsact)).collect(),
                made_qdiscs,
                filters,
                ..bare()
            }
        },
    )
}

proptest! {
    #[test]
    fn one_pass_settles_the_links_and_spares_strangers(observed in any_observed(), is_wanted: bool, changed: bool) {
        let wanted = if is_wanted { wanted() } else { Wanted::Nothing };
        let first = plan(&wanted, &observed, changed);
        let after = carried_out(&observed, &first);
        let again = plan(&wanted, &after, false);
        prop_assert_eq!(&again, &Plan { request: again.request, ..Plan::nothing() });
        let strangers = |observed: &Observed| {
            observed.filters.iter().filter(|filter| !filter.is_ours()).cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(strangers(&after), strangers(&observed));
        let is_counted = after.loaded.is_some_and(|loaded| loaded.generation != Generation::OFF);
        // Entries count only where a change would end them.
        prop_assert_eq!(is_counted, is_wanted && observed.loaded.is_some());
    }

    #[test]
    fn generations_mark_packets_as_nothing_else_does(generation: u32) {
        let next = Generation(generation).next();
        prop_assert_ne!(next, Generation(generation));
        prop_assert!(!matches!(next.0 & 0xffff, 0 | 0xffff), "{next:?}");
    }
}

#[test]
fn the_next_generation_is_another_one_at_the_ends_of_its_range() {
    let next = |generation| Generation(generation).next().0;
    assert_eq!([0, 0xfffe, 0xffff, u32::MAX - 1, u32::MAX].map(next), [1, 0x1_0001, 0x1_0001, 1, 1]);
}
