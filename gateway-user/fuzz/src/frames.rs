//! HTTP/2's frames: the same ones are found in whatever pieces they arrive, and each where the one before it ends.

use gateway_user::serve::frames::{Allowance, Frame, Frames, PREFACE};

use crate::{pieces, split};

pub(crate) fn run(data: &[u8]) {
    let Some(([count], data)) = split(data) else { return };
    let (plan, bytes) = data.split_at(usize::from(count % 8).min(data.len()));
    let mut whole = Frames::of_client();
    let found = all(&mut whole, bytes);
    let mut cut = Frames::of_client();
    let in_pieces: Vec<_> = pieces(plan, bytes).flat_map(|piece| all(&mut cut, piece)).collect();
    assert_eq!(found, in_pieces);
    assert_eq!(whole.is_between(), cut.is_between());
    let lengths: usize =
        found.iter().map(|frame| 9 + usize::try_from(frame.length).unwrap_or(usize::MAX)).sum();
    let end = PREFACE.len() + lengths;
    // All but the payload of the last, and less than a head of the next.
    assert!(found.is_empty() || bytes.len() + found.last().map_or(0, |last| last.length as usize) >= end);
    assert!(bytes.len() < end + 9);
    assert_eq!(whole.is_between(), bytes.len() == end);
    let mut allowance = Allowance::default();
    let free = found.iter().filter(|frame| allowance.received(**frame, || 1)).count();
    let calls = found.iter().filter(|frame| frame.kind < 2).count();
    assert!(free <= calls + 512, "{free} of {}", found.len());
}

fn all(frames: &mut Frames, mut bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    while let Some(frame) = frames.next(&mut bytes) {
        found.push(frame);
    }
    assert!(bytes.is_empty());
    found
}
