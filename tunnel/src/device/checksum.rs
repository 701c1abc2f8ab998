//! The Internet checksum (RFC 1071) at the speed of memory.
//!
//! It is our own, because it is most of the cost of segmenting and coalescing: `internet-checksum` 0.2 and `ip4sum` 0.1
//! add one word after the other into one accumulator, and the crates of packet types bring a parser each. The compiler
//! makes vector code of this one, without `unsafe` and without a special target.
//!
//! Sums are of 16-bit words in the machine's own byte order: RFC 1071 section 2 (B) shows that the order does not
//! matter as long as it is the same everywhere, so only [`word`] and the result of [`fold`] depend on it.

/// Bytes per turn of the main loop: four vectors of 128 bits, enough to hide the latency of an addition.
const STRIDE: usize = 64;

/// Adds `bytes` to a sum. Of several pieces only the last may have an odd length.
///
/// A sum of at most a few packets of 64 KiB stays far from overflow; [`fold`] ends it.
#[inline]
pub(crate) fn sum(bytes: &[u8], initial: u64) -> u64 {
    let mut strides = bytes.chunks_exact(STRIDE);
    // Additions of 64-bit lanes lose carries. The upper halves are summed apart as well, so that the sum of the lower
    // halves can be distinguished from the rest: three instructions for each vector, where widening would take four.
    let mut whole = [0_u64; STRIDE / 8];
    let mut upper = [0_u64; STRIDE / 8];
    for stride in &mut strides {
        for ((whole, upper), bytes) in whole.iter_mut().zip(&mut upper).zip(stride.chunks_exact(8)) {
            let lane = bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            *whole = whole.wrapping_add(lane);
            *upper += lane >> 32;
        }
    }
    let mut total = initial;
    for (whole, upper) in whole.into_iter().zip(upper) {
        total += upper + whole.wrapping_sub(upper << 32);
    }
    let mut words = strides.remainder().chunks_exact(4);
    for bytes in &mut words {
        total += bytes.first_chunk().map_or(0, |bytes| u64::from(u32::from_ne_bytes(*bytes)));
    }
    total
        + match *words.remainder() {
            [a, b, c] => u64::from(u32::from_ne_bytes([a, b, c, 0])),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            _ => 0,
        }
}

/// What a 16-bit number of a header adds to a sum.
#[inline]
pub(crate) const fn word(number: u16) -> u64 {
    number.to_be() as u64
}

/// What a 32-bit number of a header, at an even offset, adds to a sum.
#[inline]
pub(crate) const fn double_word(number: u32) -> u64 {
    number.to_be() as u64
}

/// The 16 bits of a sum as they stand in a header, not complemented: what `CHECKSUM_PARTIAL` wants of a pseudo-header.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the upper bits were folded into the lower ones")]
pub(crate) const fn fold(sum: u64) -> [u8; 2] {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum as u16).to_ne_bytes()
}

/// The checksum of a sum: what a header carries.
#[inline]
pub(crate) const fn finish(sum: u64) -> [u8; 2] {
    let [a, b] = fold(sum);
    [!a, !b]
}

/// The checksum of a sum for UDP, where zero means that there is none (RFC 768).
#[inline]
pub(crate) const fn finish_nonzero(sum: u64) -> [u8; 2] {
    match finish(sum) {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    }
}

/// Whether the sum over data with its own checksum shows that it is intact.
#[inline]
pub(crate) const fn is_valid(sum: u64) -> bool {
    matches!(fold(sum), [0xff, 0xff])
}

/// The checksum after one 16-bit word under it has changed (RFC 1624, equation 3).
#[inline]
pub(crate) const fn update(checksum: [u8; 2], old: u16, new: u16) -> [u8; 2] {
    let [a, b] = checksum;
    finish(u16::from_ne_bytes([!a, !b]) as u64 + word(!old) + word(new))
}

/// The sum of TCP's and UDP's pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1). `addresses` are source and
/// destination as they stand in the IP header, `length` is of the transport header and its payload.
#[inline]
pub(crate) fn pseudo_header(addresses: &[u8], protocol: u8, length: u32) -> u64 {
    sum(addresses, word(u16::from(protocol)) + double_word(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sample::naive_checksum;

    #[test]
    fn every_length_and_alignment_sums_as_one_word_after_the_other_does() {
        let bytes: Vec<u8> = (0..600_u32).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for start in 0..9 {
            for end in start..bytes.len() {
                let part = &bytes[start..end];
                assert_eq!(finish(sum(part, 0)), naive_checksum(&[part]).to_be_bytes(), "{start}..{end}");
            }
        }
    }

    #[test]
    fn no_carry_is_lost_in_64_kib_of_ones() {
        let bytes = vec![0xff; 65536];
        assert_eq!(fold(sum(&bytes, 0)), [0xff, 0xff]);
        assert_eq!(fold(sum(&bytes, 1)), 1_u16.to_ne_bytes());
    }

    #[test]
    fn a_sum_goes_on_over_pieces() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(fold(sum(&bytes[100..], sum(&bytes[..100], 0))), fold(sum(&bytes, 0)));
    }

    #[test]
    fn an_incremental_update_equals_a_new_sum() {
        // RFC 1624 section 4: the case that RFC 1141's equation gets wrong.
        assert_eq!(update(0xdd2f_u16.to_be_bytes(), 0x5555, 0x3285), [0x00, 0x00]);
        for old in [0, 1, 0x00ff, 0x1234, 0x8000, 0xfffe, 0xffff_u16] {
            for new in [0, 1, 0x4500, 0x4503, 0xffff_u16] {
                let header = |number: u16| sum(&[0x45, 0, 0, 20, 1, 2], word(number));
                assert_eq!(update(finish(header(old)), old, new), finish(header(new)), "{old:04x} {new:04x}");
            }
        }
    }

    #[test]
    fn udp_never_carries_a_zero() {
        assert_eq!(finish(word(0xffff)), [0, 0]);
        assert_eq!(finish_nonzero(word(0xffff)), [0xff, 0xff]);
        assert_eq!(finish_nonzero(word(0x1234)), [0xed, 0xcb]);
    }
}
