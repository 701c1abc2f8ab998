//! Ranges of numbers, and sets of rectangles without overlaps. Access lists become such sets before they become
//! elements of an nft set.
//!
//! The kernel refuses an element that overlaps an existing one, and whether it does depends on which came first (a
//! general one, then a special one: refused; the other way round: accepted). An operator's list may have overlaps, so
//! it is cut into rectangles that have none and together contain exactly the same.

use ipnet::Ipv4Net;

use crate::config::Ports;

/// A closed range of numbers: addresses, ports or protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Range {
    /// The lowest number.
    pub first: u32,
    /// The highest number, not below the lowest.
    pub last: u32,
}

impl Range {
    /// All IPv4 addresses.
    pub(super) const ALL_ADDRESSES: Self = Self { first: 0, last: u32::MAX };
    pub(super) const ALL_PORTS: Self = Self { first: 0, last: 65535 };
    pub(super) const ALL_PROTOCOLS: Self = Self { first: 0, last: 255 };

    pub(super) const fn single(number: u32) -> Self {
        Self { first: number, last: number }
    }

    /// A network's addresses.
    pub(super) fn from_network(network: Ipv4Net) -> Self {
        Self { first: network.network().into(), last: network.broadcast().into() }
    }

    pub(super) fn from_ports(ports: Ports) -> Self {
        Self { first: ports.first.into(), last: ports.last.into() }
    }

    /// The bounds have to be port numbers.
    pub(super) fn to_ports(self) -> Ports {
        let port = |bound: u32| u16::try_from(bound).unwrap_or(u16::MAX);
        Ports { first: port(self.first), last: port(self.last) }
    }

    pub(super) fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether `next` begins right after this range.
    pub(super) fn is_followed_by(self, next: Self) -> bool {
        self.last.checked_add(1) == Some(next.first)
    }
}

/// A box of `N` dimensions: a range in each.
pub(super) type HyperRect<const N: usize> = [Range; N];

/// Rectangles that do not overlap and together contain exactly what `rectangles` contain, in ascending order.
///
/// The first dimension is cut at every bound that occurs in it; the rectangles that cover a slab are cut along the
/// other dimensions; neighbours with the same rest are joined again. Lists of single hosts and networks keep their
/// length.
pub(super) fn disjoint<const N: usize>(rectangles: &[HyperRect<N>]) -> Vec<HyperRect<N>> {
    cut(&rectangles.iter().collect::<Vec<_>>(), 0)
}

fn cut<const N: usize>(rectangles: &[&HyperRect<N>], dimension: usize) -> Vec<HyperRect<N>> {
    match rectangles {
        [] => return Vec::new(),
        [single] => return vec![**single],
        _ => {}
    }
    let mut pieces: Vec<HyperRect<N>> = Vec::with_capacity(rectangles.len());
    // The last slab and where its pieces begin: the next slab joins them if it looks the same.
    let mut last_slab: Option<(Range, usize)> = None;
    for_each_slab(
        rectangles.to_vec(),
        |part| part[dimension],
        |slab, covering| {
            let rest = if dimension + 1 == N { vec![*covering[0]] } else { cut(covering, dimension + 1) };
            last_slab = Some(join(&mut pieces, last_slab, slab, rest, dimension));
        },
    );
    pieces
}

/// Cuts a line of numbers at every bound of the items' ranges. Calls `visit` for each slab that some items cover, in
/// ascending order, with these items.
pub(super) fn for_each_slab<T>(mut items: Vec<T>, range: impl Fn(&T) -> Range, mut visit: impl FnMut(Range, &[T])) {
    items.sort_by_key(|item| range(item));
    let mut covering: Vec<T> = Vec::new();
    let mut waiting = items.into_iter().peekable();
    let mut first = 0;
    loop {
        if covering.is_empty() {
            let Some(next) = waiting.peek() else { break };
            first = range(next).first;
        }
        while let Some(next) = waiting.next_if(|next| range(next).first == first) {
            covering.push(next);
        }
        // The slab ends before the next range begins, or where the first of those that cover it ends.
        let last = covering.iter().map(|item| range(item).last).min().unwrap_or(first);
        let last = waiting.peek().map_or(last, |next| last.min(range(next).first - 1));
        visit(Range { first, last }, &covering);
        covering.retain(|item| range(item).last > last);
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
}

/// Adds a slab's pieces, or widens those of the last slab where it touches that and has the same rest.
fn join<const N: usize>(
    pieces: &mut Vec<HyperRect<N>>,
    last_slab: Option<(Range, usize)>,
    slab: Range,
    rest: Vec<HyperRect<N>>,
    dimension: usize,
) -> (Range, usize) {
    if let Some((before, start)) = last_slab {
        let is_same = |one: &HyperRect<N>, other: &HyperRect<N>| one[dimension + 1..] == other[dimension + 1..];
        let former = &mut pieces[start..];
        let all_same = former.len() == rest.len() && former.iter().zip(&rest).all(|(one, other)| is_same(one, other));
        if before.is_followed_by(slab) && all_same {
            let joined = Range { first: before.first, last: slab.last };
            for piece in former {
                piece[dimension] = joined;
            }
            return (joined, start);
        }
    }
    let start = pieces.len();
    pieces.extend(rest.into_iter().map(|mut piece| {
        piece[dimension] = slab;
        piece
    }));
    (slab, start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u32, last: u32) -> Range {
        Range { first, last }
    }

    #[test]
    fn boxes_inside_wider_ones_go_and_neighbours_are_joined() {
        let wide = [range(0, 99), range(0, 65535)];
        assert_eq!(disjoint(&[[range(10, 10), range(80, 80)], wide]), [wide]);
        assert_eq!(
            disjoint(&[[range(1, 5), range(80, 80)], [range(6, 9), range(80, 80)]]),
            [[range(1, 9), range(80, 80)]]
        );
        assert_eq!(disjoint(&[[Range::ALL_ADDRESSES, range(1, 2)], wide]).len(), 2);
        assert_eq!(disjoint::<2>(&[]), Vec::<[Range; 2]>::new());
    }

    #[test]
    fn boxes_without_overlaps_stay_as_they_are() {
        let list: Vec<[Range; 2]> = (0..10_000).map(|n| [range(n * 7, n * 7), range(1, 1024)]).collect();
        assert_eq!(disjoint(&list), list);
    }

    fn small() -> impl Strategy<Value = Range> {
        (0..8_u32, 0..4_u32).prop_map(|(first, more)| range(first, (first + more).min(8)))
    }

    fn count_at(rectangles: &[[Range; 3]], point: [u32; 3]) -> usize {
        let inside =
            |part: &&[Range; 3]| part.iter().zip(point).all(|(range, at)| (range.first..=range.last).contains(&at));
        rectangles.iter().filter(inside).count()
    }

    proptest! {
        #[test]
        fn each_point_is_in_exactly_one_box_if_it_was_in_any(
            rectangles in proptest::collection::vec([small(), small(), small()], 0..12)
        ) {
            let apart = disjoint(&rectangles);
            for point in (0..10).flat_map(|a| (0..10).flat_map(move |b| (0..10).map(move |c| [a, b, c]))) {
                prop_assert_eq!(count_at(&apart, point), usize::from(count_at(&rectangles, point) > 0));
            }
        }

        #[test]
        fn the_highest_numbers_are_cut_too(first in (u32::MAX - 3).., more in 0..4_u32) {
            let part = [range(first, first.saturating_add(more)), range(0, u32::MAX)];
            prop_assert_eq!(disjoint(&[part, part]), vec![part]);
        }
    }
}
