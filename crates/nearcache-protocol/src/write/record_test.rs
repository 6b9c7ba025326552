use super::*;

fn put(seq: u64, key: &'static str, value: &'static str) -> Record {
    let value = (
        CodecTag {
            codec: 2,
            schema: 7,
        },
        Expiry::at_millis(5),
        Bytes::from_static(value.as_bytes()),
    );
    Record::Write(WriteRecord {
        seq: WriteSeq(seq),
        version: Version::from_bytes([3; 16]),
        key: Bytes::from_static(key.as_bytes()),
        value: Some(value),
    })
}

fn header() -> SegmentHeader {
    SegmentHeader {
        number: 4,
        salt: 99,
        owner: "shop/orders/one".to_owned(),
    }
}

/// A segment of these frames, each written after the one before it was on the disk; and where the frames begin.
fn segment(frames: &[Vec<Record>]) -> (Vec<u8>, Vec<usize>) {
    let mut file = header().encode();
    let mut begins = Vec::new();
    for frame in frames {
        let mut records = Vec::new();
        for record in frame {
            encode_record(record, &mut records);
        }
        let (at, mut bytes) = (file.len() as u64, Vec::new());
        begins.push(file.len());
        encode_frame(header().salt, at, at, &records, &mut bytes);
        file.extend(bytes);
    }
    (file, begins)
}

fn frames() -> Vec<Vec<Record>> {
    vec![
        vec![put(1, "a", "one"), put(2, "b", "")],
        vec![
            Record::Settled(vec![WriteSeq(1), WriteSeq(2)]),
            Record::Newest(Timestamp::from_parts(8, 1)),
        ],
        vec![Record::Write(WriteRecord {
            seq: WriteSeq(3),
            version: Version::ZERO,
            key: Bytes::from_static(b"a"),
            value: None,
        })],
    ]
}

fn records(segment: Segment) -> Vec<Record> {
    segment
        .records
        .into_iter()
        .map(|located| located.record)
        .collect()
}

#[test]
fn the_check_value_of_the_castagnoli_polynomial_comes_out() {
    assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
    assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), 0xE306_9283);
}

#[test]
fn the_bytes_of_a_segment_stay_what_they_are() {
    let (file, _) = segment(&[vec![put(1, "a", "x")]]);
    let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = concat!(
    "4e434a524e4c00010400000000000000",         // magic, number
    "63000000000000000f00",                     // salt, length of the owner
    "73686f702f6f72646572732f6f6e652a28a05d",   // owner, CRC
    "464a434e2f0000002d0000000000000061b8085e", // frame: magic, length, durable, CRC
    "2b000000010100000000000000",               // record: length, kind, number
    "03030303030303030303030303030303",         // version
    "0100000061",                               // key
    "02000700050000000000000078",               // codec, schema, expiry, value
);

#[test]
fn the_bytes_of_a_beginning_stay_what_they_are() {
    let time = Timestamp::from_parts(0x0102_0304_0506, 0x0708);
    let file = encode_beginning(&header(), time);
    let begins = header().encode().len();
    let hex: String = file[begins..].iter().fold(String::new(), |mut hex, byte| {
        hex.push_str(&format!("{byte:02x}"));
        hex
    });
    assert_eq!(hex, GOLDEN_BEGINNING);
    let read = read_segment(&file, false).unwrap();
    assert_eq!(read.valid_bytes, file.len() as u64);
    assert_eq!(records(read), [Record::Newest(time)]);
}

const GOLDEN_BEGINNING: &str = concat!(
    "464a434e0d000000000000000000000046b9a416", // frame: magic, length, durable, CRC
    "0900000003",                               // record: length, kind
    "0807060504030201",                         // the counter, then milliseconds
);

#[test]
fn a_segment_is_read_as_it_was_written_and_says_where_each_record_is() {
    let (file, _) = segment(&frames());
    let read = read_segment(&file, false).unwrap();
    assert_eq!(read.header, header());
    assert_eq!(read.valid_bytes, file.len() as u64);
    for located in &read.records {
        let at = usize::try_from(located.offset).unwrap();
        let mut again = Vec::new();
        encode_record(&located.record, &mut again);
        assert_eq!(&file[at..at + again.len()], again);
        assert_eq!(located.bytes, again.len() as u64);
    }
    assert_eq!(records(read), frames().concat());
}

#[test]
fn f12_a_torn_tail_is_cut_wherever_it_was_torn() {
    let (file, begins) = segment(&frames());
    let last = begins[2];
    for len in last..file.len() {
        let read = read_segment(&file[..len], true).unwrap();
        assert_eq!(read.valid_bytes, last as u64, "{len}");
        assert_eq!(records(read), frames()[..2].concat());
        assert!(len == last || read_segment(&file[..len], false).is_err());
    }
    // Torn in its beginning: the file has its length, and not all of its pages.
    for hole in last..file.len() {
        let mut torn = file.clone();
        torn[last..=hole].fill(0);
        assert_eq!(read_segment(&torn, true).unwrap().valid_bytes, last as u64);
    }
}

#[test]
fn f14_a_flipped_bit_in_what_was_acknowledged_is_refused_with_its_place() {
    let (file, begins) = segment(&frames());
    let first = begins[0];
    for at in 0..begins[2] {
        let mut bad = file.clone();
        bad[at] ^= 1;
        let expected = if at < first {
            SegmentError::Header
        } else {
            let begin = if at < begins[1] { first } else { begins[1] };
            SegmentError::Damaged {
                offset: begin as u64,
            }
        };
        assert_eq!(read_segment(&bad, true), Err(expected), "{at}");
    }
}

#[test]
fn what_was_not_acknowledged_may_be_torn_in_any_order_of_its_pages() {
    // Two frames, of which the second was written before the first was on the disk.
    let mut file = header().encode();
    let begin = file.len();
    for number in 1..3 {
        let mut records = Vec::new();
        encode_record(&put(number, "a", "value"), &mut records);
        let mut frame = Vec::new();
        encode_frame(
            header().salt,
            file.len() as u64,
            begin as u64,
            &records,
            &mut frame,
        );
        file.extend(frame);
    }
    file[begin + 2] ^= 0xFF;
    let read = read_segment(&file, true).unwrap();
    assert_eq!((read.valid_bytes, read.records.len()), (begin as u64, 0));
}

#[test]
fn a_frame_inside_a_value_is_no_frame() {
    let (inner, begins) = segment(&[vec![put(1, "x", "hidden")]]);
    let mut record = Vec::new();
    let Record::Write(mut write) = put(2, "a", "") else {
        panic!("a write")
    };
    if let Some((_, _, value)) = &mut write.value {
        *value = Bytes::copy_from_slice(&inner[begins[0]..]);
    }
    encode_record(&Record::Write(write), &mut record);
    let mut file = header().encode();
    let begin = file.len();
    let mut frame = Vec::new();
    encode_frame(
        header().salt,
        begin as u64,
        begin as u64,
        &record,
        &mut frame,
    );
    file.extend(frame);
    file[begin] ^= 1;
    // Torn, and nothing after it says that it was whole once.
    assert_eq!(read_segment(&file, true).unwrap().valid_bytes, begin as u64);
}
