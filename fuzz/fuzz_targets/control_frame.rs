//! What comes in by the control socket in pieces of any size is the request that it is in one piece.
#![no_main]

use bastiond::internals::control::{Request, parse_request, read_request};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt;

std::thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
}

// The number of the pieces' lengths; the lengths, of which the last one repeats; and what is sent.
fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else { return };
    let Some((lengths, bytes)) = rest.split_at_checked(usize::from(count % 8)) else { return };
    let whole = parse_request(bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default());
    let pieces = read_in_pieces(lengths, bytes);
    assert_eq!(pieces.ok(), whole.ok());
});

fn read_in_pieces(lengths: &[u8], bytes: &[u8]) -> Result<Request, serde_json::Error> {
    let last = lengths.last().copied().unwrap_or(u8::MAX);
    let mut lengths = lengths.iter().copied().chain(std::iter::repeat(last)).map(|length| usize::from(length).max(1));
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64);
            let send = async move {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(lengths.next().map_or(1, |length| length.min(rest.len())));
                    rest = after;
                    // Err: the request is complete, and what follows is not read.
                    if client.write_all(piece).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let (request, ()) = tokio::join!(read_request(server), send);
            request.expect("a pipe in memory has no errors")
        })
    })
}
