//! Raw requests that two readers could read in two ways, or that are no HTTP/1.1 at all: what is answered, and what
//! reaches upstream.

use gateway_tests::harness::{DEADLINE, Protocol, Scene, chat, user_says};
use tokio::time::timeout;

use super::{BODY, CHAT, raw};

/// A request and what must come of it.
struct Case {
    name: &'static str,
    request: String,
    /// The statuses of the answers, in order; none where the connection is closed without one.
    answers: &'static [u16],
    /// The calls that reach upstream, each with [`BODY`].
    calls: usize,
}

const SERVED: (&[u16], usize) = (&[200], 1);
const BAD: (&[u16], usize) = (&[400], 0);
const CLOSED: (&[u16], usize) = (&[], 0);

fn case(name: &'static str, request: String, (answers, calls): (&'static [u16], usize)) -> Case {
    Case { name, request, answers, calls }
}

/// A call's head that ends the connection, with `more` header lines, and what follows it.
fn call(more: &str, body: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\n{HEADERS}connection: close\r\n{more}\r\n{body}")
}

/// The same with the length of its body.
fn whole(more: &str) -> String {
    call(&format!("content-length: {}\r\n{more}", BODY.len()), BODY)
}

/// A whole call with another first line.
fn line(first: &str) -> String {
    whole("").replacen(&format!("POST {CHAT} HTTP/1.1"), first, 1)
}

/// A call in chunks.
fn chunked(chunks: &str) -> String {
    call("transfer-encoding: chunked\r\n", chunks)
}

/// A call inside of what could be taken for another's body.
fn smuggled() -> String {
    whole("x-smuggled: yes\r\n")
}

const HEADERS: &str = "host: gateway\r\napi-key: KEY\r\ncontent-type: application/json\r\n";

fn lengths() -> Vec<Case> {
    let length = BODY.len();
    let lengths = |name, more: &str, come| case(name, call(more, BODY) + &smuggled(), come);
    vec![
        lengths("no length", "", BAD),
        lengths(
            "two equal lengths",
            &format!("content-length: {length}\r\ncontent-length: {length}\r\n"),
            SERVED,
        ),
        lengths("two lengths", &format!("content-length: 5\r\ncontent-length: {length}\r\n"), BAD),
        lengths("a list of lengths", &format!("content-length: 5, {length}\r\n"), BAD),
        lengths("a length with a sign", &format!("content-length: +{length}\r\n"), BAD),
        lengths("a negative length", "content-length: -1\r\n", BAD),
        lengths("a length in hex", "content-length: 0x2d\r\n", BAD),
        lengths("a length and a space", "content-length: 4 5\r\n", BAD),
        lengths("an empty length", "content-length:\r\n", BAD),
        lengths("a length beyond any number", "content-length: 99999999999999999999999\r\n", BAD),
        lengths("a length with zeros", &format!("content-length: 000{length}\r\n"), SERVED),
        lengths("a length in blanks", &format!("content-length: \t{length} \r\n"), SERVED),
        lengths("a length under another name", &format!("content_length: {length}\r\n"), BAD),
        lengths("more than the length", &format!("content-length: {length}\r\n"), SERVED),
        lengths("less than the body", "content-length: 5\r\n", BAD),
    ]
}

fn codings() -> Vec<Case> {
    let length = BODY.len();
    let chunks = format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n");
    let coded = |name, more: &str, come| case(name, call(more, &chunks) + &smuggled(), come);
    vec![
        coded(
            "both framings",
            &format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
            SERVED,
        ),
        coded(
            "both, the other way",
            &format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
            SERVED,
        ),
        coded("chunked in other letters", "Transfer-Encoding: ChUnKeD\r\n", SERVED),
        coded("chunked, and then identity", "transfer-encoding: chunked, identity\r\n", BAD),
        coded("identity", "transfer-encoding: identity\r\n", BAD),
        coded("no such coding", "transfer-encoding: xchunked\r\n", BAD),
        coded("chunked with a parameter", "transfer-encoding: chunked;q=1\r\n", BAD),
        coded("a space before the colon", "transfer-encoding : chunked\r\n", BAD),
        coded("a tab before the colon", "transfer-encoding\t: chunked\r\n", BAD),
        coded("a vertical tab", "transfer-encoding: \x0bchunked\r\n", BAD),
        coded("a coding under another name", "transfer_encoding: chunked\r\n", BAD),
        case("chunks in HTTP/1.0", chunked(&chunks).replacen("HTTP/1.1", "HTTP/1.0", 1), BAD),
    ]
}

fn chunks() -> Vec<Case> {
    let length = BODY.len();
    let good = format!("{length:x}\r\n{BODY}\r\n0\r\n");
    let first = format!("{length:x}");
    vec![
        case("chunks", chunked(&format!("{good}\r\n")), SERVED),
        case("a chunk's extension", chunked(&format!("{first};a=b;c=\"d\"\r\n{BODY}\r\n0\r\n\r\n")), SERVED),
        case("a size with zeros", chunked(&format!("000{first}\r\n{BODY}\r\n000\r\n\r\n")), SERVED),
        case("trailers", chunked(&format!("{good}x: y\r\n\r\n")), SERVED),
        case(
            "trailers that frame",
            chunked(&format!("{good}content-length: 5\r\ntransfer-encoding: x\r\napi-key: wrong\r\n\r\n")),
            SERVED,
        ),
        case("what follows the last chunk", chunked(&format!("{good}\r\n{}", smuggled())), SERVED),
        case("a chunk that is longer", chunked(&format!("5\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("a chunk that ends in a line feed", chunked(&format!("{first}\r\n{BODY}\n0\r\n\r\n")), BAD),
        case("a size that ends in a line feed", chunked(&format!("{first}\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("a size in no hex", chunked(&format!("zz\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("a size with 0x", chunked(&format!("0x{first}\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("a size with a sign", chunked(&format!("+{first}\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("a space before a size", chunked(&format!(" {first}\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("a size beyond any number", chunked(&format!("ffffffffffffffffff\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("no size", chunked(&format!("\r\n{BODY}\r\n0\r\n\r\n")), BAD),
        case("a line feed in an extension", chunked(&format!("{first};a\nb\r\n{BODY}\r\n0\r\n\r\n")), BAD),
    ]
}

fn heads() -> Vec<Case> {
    let bare = whole("").replace("\r\n", "\n");
    let many = |count: usize| (0..count).map(|number| format!("x-{number}: 1\r\n")).collect::<String>();
    vec![
        case("a folded header", whole("x: 1\r\n folded\r\n"), BAD),
        case("a header folded by a tab", whole("x: 1\r\n\tfolded\r\n"), BAD),
        case(
            "a first header that is folded",
            whole("").replacen("HTTP/1.1\r\n", "HTTP/1.1\r\n x: folded\r\n", 1),
            BAD,
        ),
        case("line feeds alone", bare, SERVED),
        case("a carriage return in a value", whole("x: 1\r2\r\n"), BAD),
        case("a NUL in a name", whole("x\0: 1\r\n"), BAD),
        case("a NUL in a value", whole("x: 1\x002\r\n"), BAD),
        case("no name", whole(": 1\r\n"), BAD),
        case("no colon", whole("x\r\n"), BAD),
        case("a name with brackets", whole("x[1]: 1\r\n"), BAD),
        case("letters beyond ASCII in a value", whole("x: é\r\n"), SERVED),
        case("empty lines before it", format!("\r\n\r\n{}", whole("")), SERVED),
        case("a space before it", format!(" {}", whole("")), BAD),
        case("no host", whole("").replacen("host: gateway\r\n", "", 1), SERVED),
        case("another host", whole("host: evil.example\r\n"), SERVED),
        case("too many headers", whole(&many(200)), (&[431], 0)),
        case("another key behind the first", whole("api-key: wrong\r\n"), SERVED),
        case("a key that the connection names", whole("connection: api-key\r\n"), SERVED),
        case("a length that the connection names", whole("connection: content-length\r\n"), SERVED),
    ]
}

fn lines() -> Vec<Case> {
    let method = |method: &str| line(&format!("{method} {CHAT} HTTP/1.1"));
    let target = |target: &str| line(&format!("POST {target} HTTP/1.1"));
    let version = |version: &str| line(&format!("POST {CHAT}{version}"));
    const UNKNOWN: (&[u16], usize) = (&[404], 0);
    vec![
        case("a method in small letters", method("post"), UNKNOWN),
        case("no such method", method("FOO"), UNKNOWN),
        case("a method with brackets", method("P()ST"), BAD),
        case("a NUL in the method", method("PO\0ST"), BAD),
        case("TRACE", method("TRACE"), UNKNOWN),
        case("GET with a body", method("GET"), UNKNOWN),
        case("CONNECT", line("CONNECT evil.example:443 HTTP/1.1"), UNKNOWN),
        case("OPTIONS of all", line("OPTIONS * HTTP/1.1"), UNKNOWN),
        case("an absolute target", target(&format!("http://evil.example{CHAT}")), SERVED),
        case("an absolute target with a user", target(&format!("http://a:b@evil.example{CHAT}")), SERVED),
        case("an authority alone", target("evil.example:443"), UNKNOWN),
        // Clients whose endpoint ends in a slash send two; upstream gets one.
        case("two slashes", target(&format!("/{CHAT}")), SERVED),
        case("a path that goes up", target(&format!("/openai/..{CHAT}")), UNKNOWN),
        case("a path that goes up, encoded", target(&format!("/openai/%2e%2e{CHAT}")), UNKNOWN),
        case("a slash that is encoded", target(&CHAT.replacen("/chat/", "%2fchat/", 1)), UNKNOWN),
        case("backslashes", target(&CHAT.replace('/', "\\")), BAD),
        case("a space in the target", target(&format!("{CHAT}&x= y")), BAD),
        case("a NUL in the target", target(&format!("{CHAT}&x=\0")), BAD),
        case("two spaces", line(&format!("POST  {CHAT} HTTP/1.1")), BAD),
        case("HTTP/0.9", "GET /\r\n".to_owned(), BAD),
        case("HTTP/0.9 that is named", version(" HTTP/0.9"), BAD),
        case("no version", version(""), BAD),
        case("HTTP/1.2", version(" HTTP/1.2"), BAD),
        case("HTTP/2.0", version(" HTTP/2.0"), BAD),
        case("a version in small letters", version(" http/1.1"), BAD),
        case("something behind the version", version(" HTTP/1.1 x"), BAD),
        case("HTTP/1.0", version(" HTTP/1.0"), SERVED),
        case(
            "the preface of HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
            CLOSED,
        ),
    ]
}

fn turns() -> Vec<Case> {
    let good = whole("").replacen("connection: close\r\n", "", 1);
    let inner = smuggled();
    let in_body = |first: &str, more: &str| {
        format!(
            "{first}\r\n{HEADERS}connection: close\r\ncontent-length: {}\r\n{more}\r\n{inner}",
            inner.len()
        )
    };
    vec![
        case("asked whether to go on", whole("expect: 100-continue\r\n"), (&[100, 200], 1)),
        case("asked something else", whole("expect: 200-ok\r\n"), SERVED),
        case("an upgrade to WebSocket", whole("connection: upgrade\r\nupgrade: websocket\r\n"), SERVED),
        case(
            "an upgrade to HTTP/2",
            whole(
                "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
            ),
            SERVED,
        ),
        case("trailers wanted", whole("te: trailers, deflate;q=0.5\r\n"), SERVED),
        case("another method by header", whole("x-http-method-override: DELETE\r\n"), SERVED),
        case("two calls at once", format!("{good}{}", whole("")), (&[200, 200], 2)),
        case("a bad one behind a good one", format!("{good}BAD\r\n\r\n"), (&[200, 400], 1)),
        case("bytes behind a good one", format!("{good}\0\0\0\0\r\n\r\n"), (&[200, 400], 1)),
        case("a good one behind a bad one", format!("BAD\r\n\r\n{}", whole("")), BAD),
        case("a call in the body of a refused one", in_body("POST /unknown HTTP/1.1", ""), (&[404], 0)),
        case("a call in the body of a GET", in_body("GET /openai/v1/models HTTP/1.1", ""), (&[200], 0)),
        case("a call in the body of a HEAD", in_body("HEAD / HTTP/1.1", ""), (&[200], 0)),
    ]
}

/// The statuses of the answers in what came.
fn statuses(came: &str) -> Vec<u16> {
    let answers = came.split("HTTP/1.").skip(1);
    answers.filter_map(|answer| answer.get(2..5)?.parse().ok()).collect()
}

async fn check(cases: Vec<Case>) {
    let scene = Scene::start("[listen]\nheader_timeout = \"5s\"\n").await.unwrap();
    let mut neighbour = scene.gateway.connect(Protocol::Http1).await.unwrap();
    let mut wrong = Vec::new();
    for Case { name, request, answers, calls } in cases {
        scene.azure.forget_requests();
        let mut connection = raw(&scene).await;
        let request = request.replace("KEY", &scene.acme.primary);
        // The gateway may close before all of it was sent.
        drop(connection.write(request.as_bytes()).await);
        let came = timeout(DEADLINE, connection.read_to_end()).await.unwrap().unwrap();
        let sent = scene.azure.requests();
        if statuses(&came) != answers || sent.len() != calls {
            wrong.push(format!("{name}: {:?} and {} calls upstream", statuses(&came), sent.len()));
        }
        for call in sent {
            let length = call.body.len().to_string();
            assert_eq!((&call.body[..], call.method.as_str()), (BODY.as_bytes(), "POST"), "{name}");
            assert_eq!(call.header("content-length"), Some(&*length), "{name}");
            assert_eq!(call.target, CHAT, "{name}");
            for left in ["transfer-encoding", "upgrade", "http2-settings", "te", "expect", "api-key"] {
                assert_eq!(call.header(left), None, "{name}");
            }
            for text in ["evil.example", "x-smuggled", &scene.acme.primary] {
                assert!(!call.contains(text), "{name}: {text}");
            }
        }
        let request = chat("chat", &scene.neighbour.primary, &user_says("hi")).unwrap();
        assert_eq!(neighbour.send(request).await.unwrap().status, 200, "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.unharmed().await.unwrap();
}

#[tokio::test]
async fn a_body_has_one_length() {
    check(lengths()).await;
}

#[tokio::test]
async fn a_body_has_one_coding() {
    check(codings()).await;
}

#[tokio::test]
async fn chunks_are_read_in_one_way() {
    check(chunks()).await;
}

#[tokio::test]
async fn heads_are_read_in_one_way() {
    check(heads()).await;
}

#[tokio::test]
async fn first_lines_are_read_in_one_way() {
    check(lines()).await;
}

#[tokio::test]
async fn one_request_ends_where_the_next_begins() {
    check(turns()).await;
}
