//! A backend's response: it is read alike in whatever pieces it arrives, and nothing of it is made up or lost.

use bytes::BytesMut;
use gateway_user::upstream::http1::{Piece, WireError, take_head};
use http::{HeaderMap, StatusCode};

pub(crate) fn run(data: &[u8]) {
    let Some((plan, bytes)) = crate::split::<4>(data) else { return };
    let whole = read(std::iter::once(bytes));
    assert_eq!(whole, read(crate::pieces(&plan, bytes)), "in pieces of {plan:?}");
    let taken = whole.body.len() + whole.rest.len();
    assert!(taken <= bytes.len() && bytes.ends_with(&whole.rest));
}

/// What a reader makes of it.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    head: Option<(StatusCode, HeaderMap)>,
    body: Vec<u8>,
    end: Option<Result<(), WireError>>,
    /// Not taken. After an error nobody looks at it.
    rest: Vec<u8>,
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Reading {
    let (mut buffer, mut reading) = (BytesMut::new(), Reading::default());
    let mut framing = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while reading.end.is_none() {
            let Some(framing) = &mut framing else {
                match take_head(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        framing = Some(head.framing);
                        reading.head = Some((head.response.status(), head.response.headers().clone()));
                    }
                    Err(error) => reading.end = Some(Err(error)),
                }
                continue;
            };
            match framing.take(&mut buffer) {
                Ok(Piece::Data(data)) => reading.body.extend_from_slice(&data),
                Ok(Piece::Incomplete) => break,
                Ok(Piece::End) => reading.end = Some(Ok(())),
                Err(error) => reading.end = Some(Err(error)),
            }
        }
    }
    if !matches!(reading.end, Some(Err(_))) {
        reading.rest = buffer.to_vec();
    }
    reading
}
