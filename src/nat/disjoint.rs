//! Boxes without overlaps: what access lists become before they are a set's elements.
//!
//! The kernel refuses an element that overlaps one that is there, and whether it does depends on which came first (a general
//! one, then a special one: refused; the other way round: taken). An operator's list may overlap as it likes, so it is cut
//! into boxes that do not, which together hold exactly the same.

/// A closed span of numbers: addresses, ports or protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Range {
    /// The lowest.
    pub first: u32,
    /// The highest, not below the lowest.
    pub last: u32,
}

impl Range {
    /// Whether it is one number.
    pub(super) fn is_single(self) -> bool {
        self.first == self.last
    }

    /// All addresses.
    pub(super) const EVERYWHERE: Self = Self { first: 0, last: u32::MAX };

    /// A network's addresses.
    pub(super) fn of(network: ipnet::Ipv4Net) -> Self {
        Self { first: network.network().into(), last: network.broadcast().into() }
    }
}

/// A box of `N` dimensions.
pub(super) type HyperRect<const N: usize> = [Range; N];

/// Boxes that do not overlap and together hold exactly what `boxes` hold, in ascending order.
///
/// The first dimension is cut at every bound that occurs in it; what covers a piece is cut along the other dimensions;
/// neighbours with the same rest are joined again. Lists of single hosts and networks stay as long as they were.
pub(super) fn disjoint<const N: usize>(boxes: &[HyperRect<N>]) -> Vec<HyperRect<N>> {
    let all: Vec<&HyperRect<N>> = boxes.iter().collect();
    cut(&all, 0)
}

fn cut<const N: usize>(boxes: &[&HyperRect<N>], dimension: usize) -> Vec<HyperRect<N>> {
    match boxes {
        [] => return Vec::new(),
        [single] => return vec![**single],
        _ => {}
    }
    let mut sorted = boxes.to_vec();
    sorted.sort_by_key(|part| part[dimension]);
    let mut out: Vec<HyperRect<N>> = Vec::with_capacity(boxes.len());
    // Where the pieces of the former slab begin in `out`: the next slab joins them if it looks the same.
    let mut former: Option<(Range, usize)> = None;
    let mut covering: Vec<&HyperRect<N>> = Vec::new();
    let mut waiting = sorted.into_iter().peekable();
    let mut at = 0;
    loop {
        if covering.is_empty() {
            let Some(next) = waiting.peek() else { break };
            at = next[dimension].first;
        }
        while let Some(next) = waiting.next_if(|next| next[dimension].first == at) {
            covering.push(next);
        }
        // The slab ends before the next box begins, or where the first of those that cover it ends.
        let end = covering.iter().map(|part| part[dimension].last).min().unwrap_or(at);
        let end = waiting.peek().map_or(end, |next| end.min(next[dimension].first - 1));
        let slab = Range { first: at, last: end };
        let rest = if dimension + 1 == N { vec![*covering[0]] } else { cut(&covering, dimension + 1) };
        former = Some(join(&mut out, former, slab, rest, dimension));
        covering.retain(|part| part[dimension].last > end);
        let Some(next) = end.checked_add(1) else { break };
        at = next;
    }
    out
}

/// Adds a slab, or widens the former one where it touches it and has the same rest.
fn join<const N: usize>(
    out: &mut Vec<HyperRect<N>>,
    former: Option<(Range, usize)>,
    slab: Range,
    rest: Vec<HyperRect<N>>,
    dimension: usize,
) -> (Range, usize) {
    if let Some((before, start)) = former {
        let touches = before.last.checked_add(1) == Some(slab.first);
        let same = |one: &HyperRect<N>, other: &HyperRect<N>| one[dimension + 1..] == other[dimension + 1..];
        let pieces = &mut out[start..];
        if touches && pieces.len() == rest.len() && pieces.iter().zip(&rest).all(|(one, other)| same(one, other)) {
            let joined = Range { first: before.first, last: slab.last };
            for piece in pieces {
                piece[dimension] = joined;
            }
            return (joined, start);
        }
    }
    let start = out.len();
    out.extend(rest.into_iter().map(|mut piece| {
        piece[dimension] = slab;
        piece
    }));
    (slab, start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: u32, last: u32) -> Range {
        Range { first, last }
    }

    #[test]
    fn what_a_wider_box_holds_goes_and_neighbours_are_joined() {
        let wide = [span(0, 99), span(0, 65535)];
        assert_eq!(disjoint(&[[span(10, 10), span(80, 80)], wide]), [wide]);
        assert_eq!(disjoint(&[[span(1, 5), span(80, 80)], [span(6, 9), span(80, 80)]]), [[span(1, 9), span(80, 80)]]);
        assert_eq!(disjoint(&[[Range::EVERYWHERE, span(1, 2)], wide]).len(), 2);
        assert_eq!(disjoint::<2>(&[]), Vec::<[Range; 2]>::new());
    }

    #[test]
    fn what_is_apart_stays_as_it_was() {
        let list: Vec<[Range; 2]> = (0..10_000).map(|n| [span(n * 7, n * 7), span(1, 1024)]).collect();
        assert_eq!(disjoint(&list), list);
    }

    fn small() -> impl Strategy<Value = Range> {
        (0..8_u32, 0..4_u32).prop_map(|(first, more)| span(first, (first + more).min(8)))
    }

    fn holds(boxes: &[[Range; 3]], point: [u32; 3]) -> usize {
        let inside =
            |part: &&[Range; 3]| part.iter().zip(point).all(|(span, at)| (span.first..=span.last).contains(&at));
        boxes.iter().filter(inside).count()
    }

    proptest! {
        #[test]
        fn each_point_is_in_exactly_one_box_if_it_was_in_any(
            boxes in proptest::collection::vec([small(), small(), small()], 0..12)
        ) {
            let apart = disjoint(&boxes);
            for point in (0..10).flat_map(|a| (0..10).flat_map(move |b| (0..10).map(move |c| [a, b, c]))) {
                prop_assert_eq!(holds(&apart, point), usize::from(holds(&boxes, point) > 0));
            }
        }

        #[test]
        fn the_ends_of_the_number_line_are_numbers_too(first in (u32::MAX - 3).., more in 0..4_u32) {
            let part = [span(first, first.saturating_add(more)), span(0, u32::MAX)];
            prop_assert_eq!(disjoint(&[part, part]), vec![part]);
        }
    }
}
