use proptest::{collection::vec, prelude::*};

use super::*;

type Request = Vec<Vec<u8>>;

/// What a client's bytes came to: requests, the lengths of oversized arguments, the error that ended it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    requests: Vec<Result<Request, usize>>,
    error: Option<ProtocolError>,
    held_bytes_max: usize,
}

/// Feeds `chunks` one after the other, keeping between them what the parser asks to keep.
fn feed<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, bounds: &Bounds) -> Outcome {
    let mut parser = Parser::default();
    let mut held = Vec::new();
    let mut outcome = Outcome::default();
    for chunk in chunks {
        held.extend_from_slice(chunk);
        outcome.held_bytes_max = outcome.held_bytes_max.max(held.len());
        loop {
            let len = match parser.parse(&held, bounds) {
                Ok(Progress::Incomplete { discard }) => {
                    held.drain(..discard);
                    break;
                }
                Ok(Progress::Request { len }) => {
                    let args = parser.args(&held);
                    outcome
                        .requests
                        .push(Ok(args.from(0).map(<[u8]>::to_vec).collect()));
                    len
                }
                Ok(Progress::Oversized { len, longest }) => {
                    outcome.requests.push(Err(longest));
                    len
                }
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            };
            held.drain(..len);
        }
    }
    outcome
}

fn bounds() -> Bounds {
    Bounds::authenticated(&Limits::default())
}

fn encode(request: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
    for argument in request {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn error_of(bytes: &[u8]) -> String {
    feed([bytes], &bounds())
        .error
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[test]
fn pipelined_requests_are_found_one_after_the_other() {
    let outcome = feed(
        [&b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\nping a\r\n\r\n*0\r\n"[..]],
        &bounds(),
    );
    let expected: Vec<Result<Request, usize>> = vec![
        Ok(vec![b"PING".to_vec()]),
        Ok(vec![b"GET".to_vec(), Vec::new()]),
        Ok(vec![b"ping".to_vec(), b"a".to_vec()]),
        Ok(Vec::new()),
        Ok(Vec::new()),
    ];
    assert_eq!(outcome.requests, expected);
    assert_eq!(outcome.error, None);
}

#[test]
fn bad_input_03_a_count_that_is_no_count_ends_the_connection() {
    for bytes in [
        &b"*-5\r\n"[..],
        b"*abc\r\n",
        b"*9223372036854775808\r\n",
        b"*1048577\r\n",
        b"*\r\n",
    ] {
        assert_eq!(error_of(bytes), "Protocol error: invalid multibulk length");
    }
}

#[test]
fn bad_input_04_a_length_that_is_no_length_ends_the_connection() {
    for length in ["$-2", "$ 5", "$+5", "$10000000000000000000", "$", "$abc"] {
        let bytes = format!("*1\r\n{length}\r\n");
        assert_eq!(
            error_of(bytes.as_bytes()),
            "Protocol error: invalid bulk length",
            "{length}"
        );
    }
}

#[test]
fn bad_input_05_an_argument_must_end_with_a_line_end() {
    let bytes = b"*1\r\n$4\r\nPINGxx";
    assert_eq!(error_of(bytes), "Protocol error: expected CRLF after bulk");
}

#[test]
fn bad_input_06_an_argument_must_be_a_bulk_string() {
    assert_eq!(
        error_of(b"*2\r\n:5\r\n"),
        "Protocol error: expected '$', got ':'"
    );
}

#[test]
fn bad_input_07_a_line_longer_than_64_kib_is_refused_with_or_without_its_end() {
    let long = vec![b'a'; 70 << 10];
    assert_eq!(error_of(&long), "Protocol error: too big inline request");
    let count = [&b"*"[..], &long].concat();
    assert_eq!(
        error_of(&count),
        "Protocol error: too big mbulk count string"
    );
    let length = [&b"*1\r\n$"[..], &long].concat();
    assert_eq!(
        error_of(&length),
        "Protocol error: too big bulk count string"
    );
}

#[test]
fn bad_input_01_and_02_a_stranger_may_declare_only_little() {
    let bounds = Bounds::unauthenticated(&Limits::default());
    let error = |bytes: &[u8]| feed([bytes], &bounds).error;
    assert_eq!(
        error(b"*1000000\r\n"),
        Some(ProtocolError::UnauthenticatedMultibulkLength)
    );
    assert_eq!(
        error(b"*1\r\n$100000000\r\n"),
        Some(ProtocolError::UnauthenticatedBulkLength)
    );
}

#[test]
fn bad_input_17_an_argument_longer_than_a_value_is_skipped_and_never_held() {
    let mut bounds = bounds();
    bounds.argument_bytes = 1_000;
    let big = vec![b'v'; 100_000];
    let mut bytes = encode(&[b"SET".to_vec(), b"k".to_vec(), big, b"NX".to_vec()]);
    bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    let outcome = feed(bytes.chunks(512), &bounds);
    assert_eq!(outcome.requests, [Err(100_000), Ok(vec![b"PING".to_vec()])]);
    assert!(
        outcome.held_bytes_max <= 1_024,
        "{}",
        outcome.held_bytes_max
    );
}

#[test]
fn a_skipped_argument_must_end_with_a_line_end_too() {
    let mut bounds = bounds();
    bounds.argument_bytes = 4;
    assert_eq!(
        feed([&b"*1\r\n$6\r\nabcdefgh"[..]], &bounds).error,
        Some(ProtocolError::BulkEnd)
    );
}

#[test]
fn all_arguments_together_are_bounded_before_they_arrive() {
    let mut bounds = bounds();
    bounds.request_bytes = 10;
    let outcome = feed([&b"*2\r\n$6\r\nabcdef\r\n$5\r\n"[..]], &bounds);
    assert_eq!(
        outcome.error,
        Some(ProtocolError::RequestTooBig { limit_bytes: 10 })
    );
}

#[test]
fn a_carriage_return_alone_does_not_end_a_count() {
    assert_eq!(
        error_of(b"*1\rx"),
        "Protocol error: invalid multibulk length"
    );
    assert_eq!(
        error_of(b"*1\r\n$4\rx"),
        "Protocol error: invalid bulk length"
    );
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    vec(vec(vec(any::<u8>(), 0..40), 1..8), 0..8)
}

/// Bytes near enough to the protocol to get past its first checks.
fn nearly_protocol() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"*2\r\n$3\r\nGET\r\n".to_vec()),
        "[0-9]{1,3}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Cuts `bytes` at the places `cuts` name.
fn chunked<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|ends| &bytes[ends[0]..ends[1]])
        .collect()
}

proptest! {
    #[test]
    fn what_was_encoded_is_parsed_however_it_is_cut(
        requests in requests(),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(|request| encode(request)).collect();
        let outcome = feed(chunked(&bytes, &cuts), &bounds());
        prop_assert_eq!(outcome.error, None);
        let parsed: Vec<Request> = outcome.requests.into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(parsed, requests);
    }

    #[test]
    fn any_bytes_mean_the_same_however_they_are_cut(
        bytes in nearly_protocol(),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bounds = bounds();
        bounds.argument_bytes = 50;
        bounds.line_bytes = 64;
        let whole = feed([&bytes[..]], &bounds);
        let cut = feed(chunked(&bytes, &cuts), &bounds);
        prop_assert_eq!(whole.requests, cut.requests);
        prop_assert_eq!(whole.error, cut.error);
    }
}
