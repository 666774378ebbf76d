//! What the gateway reads from outside, fed with any bytes.
//!
//! A target is a property that holds for all of them, and an assertion where it does not. `cargo xtask fuzz` has
//! libFuzzer look for bytes that break one; the test below tries those in `corpus/`, where each that ever did has its
//! place.

mod config;
mod frames;
mod packet;
mod prompt;
mod proxy_protocol;
mod request;
mod response;
mod route;
mod stream;
mod usage;

/// One property.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Fails where these bytes break it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "config", run: config::run },
    Target { name: "frames", run: frames::run },
    Target { name: "packet", run: packet::run },
    Target { name: "prompt", run: prompt::run },
    Target { name: "proxy_protocol", run: proxy_protocol::run },
    Target { name: "request", run: request::run },
    Target { name: "response", run: response::run },
    Target { name: "route", run: route::run },
    Target { name: "stream", run: stream::run },
    Target { name: "usage", run: usage::run },
];

/// Cuts bytes into pieces of the lengths that `plan` names, over and over; where it is empty, into one.
fn pieces<'a>(plan: &'a [u8], mut bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = plan.iter().cycle();
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = lengths.next().map_or(bytes.len(), |length| usize::from(*length).max(1));
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        Some(piece)
    })
}

/// The first `N` bytes, which say how the others are used, and the others.
fn split<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    data.split_first_chunk().map(|(head, rest)| (*head, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_holds_for_its_corpus_and_for_every_start_of_it() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for Target { name, run } in TARGETS {
            let files: Vec<_> =
                fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                let bytes = fs::read(&file).unwrap();
                println!("{}", file.display());
                for end in 0..=bytes.len() {
                    run(&bytes[..end]);
                }
            }
        }
    }

    #[test]
    fn every_corpus_has_a_target() {
        let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
        let folders: BTreeSet<_> =
            folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect());
    }

    #[test]
    fn pieces_make_up_the_whole() {
        let cut: Vec<_> = pieces(&[2, 0, 3], b"abcdefgh").collect();
        assert_eq!(cut, [b"ab".as_slice(), b"c", b"def", b"gh"]);
        assert_eq!(pieces(&[], b"abc").collect::<Vec<_>>(), [b"abc"]);
    }
}
