//! A balancer's PROXY header: found in whatever pieces it arrives, and nothing behind it is read.

use gateway_user::serve::proxy_protocol::Header;

pub(crate) fn run(data: &[u8]) {
    let Header::Whole { length, source } = Header::parse(data) else { return };
    let (header, _) = data.split_at(length);
    assert_eq!(Header::parse(header), Header::Whole { length, source });
    for end in 0..length {
        let start = header.get(..end).unwrap_or_default();
        assert_eq!(Header::parse(start), Header::Incomplete, "the first {end} bytes");
    }
}
