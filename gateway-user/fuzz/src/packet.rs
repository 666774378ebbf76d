//! A frame from the network: what is read of it depends on nothing behind it, and where it is cut short it is passed.

use gateway_ebpf::packet::{Path, Segment, Skip, parse};

pub(crate) fn run(frame: &[u8]) {
    let whole = parse(frame);
    let longer = [frame, &[0xff; 64]].concat();
    for end in 0..frame.len() {
        let Some(cut) = frame.get(..end) else { continue };
        match parse(cut) {
            Err(Skip::Unreadable) => {}
            // Of a first fragment, the ports are enough: it counts as one that may open a connection.
            Ok(read @ Segment { opening: true, .. }) if whole != Ok(read) => {
                assert_eq!(whole.map(|segment| Segment { opening: true, ..segment }), Ok(read));
            }
            read => assert_eq!(read, whole, "cut at {end}"),
        }
    }
    if whole != Err(Skip::Unreadable) {
        assert!(match (whole, parse(longer.as_slice())) {
            (Ok(short), Ok(long)) => (short.path, short.port) == (long.path, long.port),
            (short, long) => short == long,
        });
    }
    if let Ok(Segment { path, .. }) = whole {
        assert!(path.source().is_some() || matches!(path, Path::V6 { .. }), "{path:?} has no source");
    }
}
