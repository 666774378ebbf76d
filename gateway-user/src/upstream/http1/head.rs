//! The heads of messages: a request's is written, a response's is read.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use httparse::{ParserConfig, Status};
use memchr::memmem;

use super::{Framing, LONGEST_HEAD, MOST_HEADERS, WireError};

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// Its status and headers.
    pub response: Response<()>,
    /// How its body is delimited.
    pub framing: Framing,
    /// Whether another exchange may follow on the connection.
    pub keep_alive: bool,
}

/// The head of a request whose body is of the given parts. `Content-Length` is the body's, whatever the headers say.
pub(crate) fn request_head(request: &Request<Vec<Bytes>>) -> Bytes {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let length: usize = request.body().iter().map(Bytes::len).sum();
    let headers =
        || request.headers().iter().filter(|(name, _)| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING);
    let size: usize = headers().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut head = Vec::with_capacity(size + target.len() + 80);
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"content-length: ");
    head.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    Bytes::from(head)
}

/// Takes the head of a response off the front of what was read: nothing while it is not whole. Interim responses before
/// it (1xx) are passed over.
///
/// # Errors
/// When it is not the head of a response, is too long, or does not tell where its body ends.
pub fn take_head(read: &mut BytesMut) -> Result<Option<Head>, WireError> {
    loop {
        let Some(end) = memmem::find(read, END) else {
            return if read.len() >= LONGEST_HEAD + END.len() {
                Err(WireError::HeadTooLong)
            } else {
                Ok(None)
            };
        };
        if end > LONGEST_HEAD {
            return Err(WireError::HeadTooLong);
        }
        let bytes = read.split_to(end + END.len()).freeze();
        let head = parse(&bytes)?;
        if !head.response.status().is_informational() {
            return Ok(Some(head));
        }
        if head.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(WireError::Upgrade);
        }
    }
}

fn parse(bytes: &Bytes) -> Result<Head, WireError> {
    let mut space = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let status =
        ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut space)?;
    // A line that ends without a carriage return makes the parser's end differ from the one that was found.
    if status != Status::Complete(bytes.len()) {
        return Err(WireError::Head(httparse::Error::NewLine));
    }
    let status =
        parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(httparse::Error::Status)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|_invalid| httparse::Error::HeaderName)?;
        // Not copied: it stays a part of what was read.
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(header.value))
            .map_err(|_invalid| httparse::Error::HeaderValue)?;
        headers.append(name, value);
    }
    let framing = framing(status, &headers)?;
    let keep_alive =
        parsed.version == Some(1) && !matches!(framing, Framing::UntilClose) && !says_close(&headers);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Head { response, framing, keep_alive })
}

/// How the body of a response to a `POST` or a `GET` is delimited (RFC 9112, 6.3).
fn framing(status: StatusCode, headers: &HeaderMap) -> Result<Framing, WireError> {
    if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::Length(0));
    }
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (encodings.next(), lengths.next()) {
        (Some(encoding), None) => {
            if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(WireError::TransferEncoding);
            }
            Ok(Framing::chunked())
        }
        (None, Some(length)) if lengths.next().is_none() => {
            digits(length).map(Framing::Length).ok_or(WireError::Length)
        }
        (None, None) => Ok(Framing::UntilClose),
        (Some(_), Some(_)) | (None, Some(_)) => Err(WireError::Length),
    }
}

/// Only digits: a sign, which Rust's own parser takes, is none.
fn digits(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)?.parse().ok()
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

const END: &[u8] = b"\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<Option<Head>, WireError> {
        take_head(&mut BytesMut::from(text))
    }

    fn framing_of(headers: &str) -> Result<Framing, WireError> {
        taken(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).map(|head| head.unwrap().framing)
    }

    #[test]
    fn a_request_is_written_with_the_length_of_its_body() {
        let request = Request::post("/openai/v1/responses?a=b")
            .header("host", "x.openai.azure.com")
            .header("content-length", "9999")
            .header("transfer-encoding", "chunked")
            .body(vec![Bytes::from_static(b"{}"), Bytes::from_static(b"\n")])
            .unwrap();
        assert_eq!(
            request_head(&request),
            "POST /openai/v1/responses?a=b HTTP/1.1\r\nhost: x.openai.azure.com\r\ncontent-length: 3\r\n\r\n"
        );
    }

    #[test]
    fn a_head_is_taken_once_it_is_whole_and_no_more_than_it() {
        let text =
            "HTTP/1.1 429 Too Many\r\nRetry-After:  7 \r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\n";
        for end in 0..text.len() {
            let start = text.get(..end).unwrap();
            let mut read = BytesMut::from(start);
            assert!(take_head(&mut read).unwrap().is_none());
            assert_eq!(read, start);
        }
        let mut read = BytesMut::from(&*format!("{text}{{}}"));
        let head = take_head(&mut read).unwrap().unwrap();
        assert_eq!(read, "{}");
        assert_eq!(head.response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(head.response.headers()["retry-after"], "7");
        assert_eq!(head.response.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(head.keep_alive && head.framing == Framing::Length(2));
    }

    #[test]
    fn interim_responses_are_passed_over_and_no_protocol_is_switched() {
        let head = taken(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        );
        assert_eq!(head.unwrap().unwrap().framing, Framing::Length(0));
        assert_eq!(taken("HTTP/1.1 101 Up\r\nupgrade: x\r\n\r\n").unwrap_err(), WireError::Upgrade);
    }

    #[test]
    fn a_body_s_end_must_be_told_in_one_way() {
        assert_eq!(framing_of("content-length: 0\r\n"), Ok(Framing::Length(0)));
        assert_eq!(framing_of("Transfer-Encoding: Chunked\r\n"), Ok(Framing::chunked()));
        assert_eq!(framing_of(""), Ok(Framing::UntilClose));
        for refused in ["+1", "-1", "1, 1", "1a", "", "99999999999999999999"]
            .map(|length| format!("content-length: {length}\r\n"))
        {
            assert_eq!(framing_of(&refused), Err(WireError::Length), "{refused}");
        }
        for refused in [
            "content-length: 1\r\ncontent-length: 1\r\n",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
        ] {
            assert_eq!(framing_of(refused), Err(WireError::Length), "{refused}");
        }
        for refused in ["gzip", "gzip, chunked", "chunked, chunked", "chunked\r\ntransfer-encoding: chunked"]
        {
            let refused = format!("transfer-encoding: {refused}\r\n");
            assert_eq!(framing_of(&refused), Err(WireError::TransferEncoding), "{refused}");
        }
    }

    #[test]
    fn a_connection_is_kept_only_where_both_sides_know_it() {
        for (head, kept) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 1\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
        ] {
            assert_eq!(taken(head).unwrap().unwrap().keep_alive, kept, "{head}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        assert!(taken("SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(taken("HTTP/1.1 200 OK\r\nbad header\r\n\r\n").is_err());
        assert!(taken("HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n").is_err());
        assert!(taken("HTTP/1.1 200 OK\nx: a\n\nrest\r\n\r\n").is_err(), "two readers would see two ends");
        assert!(taken(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1))).is_err());
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(LONGEST_HEAD));
        assert_eq!(taken(&long).unwrap_err(), WireError::HeadTooLong);
        assert_eq!(taken(&format!("{long}\r\n\r\n")).unwrap_err(), WireError::HeadTooLong);
    }
}
