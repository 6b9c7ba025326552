//! Readers of recorded access traces, compressed as they were published.
//!
//! A file's name says what it is: the part before the first hyphen names the collection, and so the
//! format; the ending names the compression. What comes out is a sequence of [`Request`]s.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// One access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// What was accessed.
    pub(crate) key: u64,
    /// Its size, in traces that tell.
    pub(crate) size_bytes: Option<u32>,
}

/// A recorded sequence of accesses.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// Name of the file without its endings.
    pub(crate) name: String,
    /// The accesses in their order.
    pub(crate) requests: Vec<Request>,
}

/// How accesses are written down, after decompression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `first_block count ignored request_number`: accesses of `count` keys from `first_block`.
    Arc,
    /// Keys of 4 bytes, big endian.
    Words32,
    /// Keys of 8 bytes, big endian.
    Words64,
    /// `time key size`, size in bytes.
    TimeKeySize,
    /// One key a line; lines that are no number are marks.
    Lines,
}

impl Format {
    fn of_collection(collection: &str) -> Option<Self> {
        Some(match collection {
            "arc" => Self::Arc,
            "cache2k" | "cloud_physics" => Self::Words32,
            "scarab" | "corda" => Self::Words64,
            "adapt_size" => Self::TimeKeySize,
            "lirs" | "generated" => Self::Lines,
            _ => return None,
        })
    }
}

/// Reads the trace in the file `path`.
///
/// # Errors
/// When the name tells no format, or the content is not of that format.
pub(crate) fn read(path: &Path) -> anyhow::Result<Trace> {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let format = format_of(path).with_context(|| {
        format!("{file_name}: a trace's name begins with its collection, such as `arc-` or `lirs-`")
    })?;
    let bytes = decompressed(path).with_context(|| format!("reading {}", path.display()))?;
    let requests = parse(format, &bytes).with_context(|| format!("in {}", path.display()))?;
    let name = file_name.split(".lis").next().unwrap_or_default();
    let name = name
        .split(".trace")
        .next()
        .unwrap_or_default()
        .trim_end_matches(".gz");
    Ok(Trace {
        name: name.to_owned(),
        requests,
    })
}

/// The traces in a folder, in the order of their names; other files are passed over.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("reading the folder {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let is_data = path
            .extension()
            .is_some_and(|end| end == "zst" || end == "xz" || end == "gz");
        if is_data && format_of(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?;
    Format::of_collection(name.split_once('-')?.0)
}

fn decompressed(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("zst") => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(file)
                .map_err(|error| anyhow::anyhow!("not zstd: {error}"))?;
            decoder.read_to_end(&mut bytes)?;
        }
        Some("xz") => lzma_rs::xz_decompress(&mut file, &mut bytes)
            .map_err(|error| anyhow::anyhow!("not xz: {error}"))?,
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes)?;
        }
        _ => {
            file.read_to_end(&mut bytes)?;
        }
    }
    Ok(bytes)
}

fn parse(format: Format, bytes: &[u8]) -> anyhow::Result<Vec<Request>> {
    match format {
        Format::Arc => parse_arc(text(bytes)?),
        Format::Words32 => words(bytes, |word: [u8; 4]| u32::from_be_bytes(word).into()),
        Format::Words64 => words(bytes, u64::from_be_bytes),
        Format::TimeKeySize => parse_sized(text(bytes)?),
        Format::Lines => Ok(text(bytes)?
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .map(|key| Request {
                key,
                size_bytes: None,
            })
            .collect()),
    }
}

fn text(bytes: &[u8]) -> anyhow::Result<&str> {
    std::str::from_utf8(bytes).context("not text")
}

fn words<const N: usize>(
    bytes: &[u8],
    key: impl Fn([u8; N]) -> u64,
) -> anyhow::Result<Vec<Request>> {
    let (words, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        bail!("{} bytes are no whole number of {N}-byte keys", bytes.len());
    }
    Ok(words
        .iter()
        .map(|word| Request {
            key: key(*word),
            size_bytes: None,
        })
        .collect())
}

fn parse_arc(text: &str) -> anyhow::Result<Vec<Request>> {
    let mut requests = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(count))) = (fields.next(), fields.next()) else {
            bail!("line {}: not `first_block count ..`", number + 1);
        };
        requests.extend((first..first + count).map(|key| Request {
            key,
            size_bytes: None,
        }));
    }
    Ok(requests)
}

fn parse_sized(text: &str) -> anyhow::Result<Vec<Request>> {
    let mut requests = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut fields = line.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        let (Some(Ok(key)), Some(Ok(size))) = (fields.next(), fields.next()) else {
            bail!("line {}: not `time key size`", number + 1);
        };
        let size_bytes = Some(u32::try_from(size).unwrap_or(u32::MAX));
        requests.push(Request { key, size_bytes });
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(format: Format, bytes: &[u8]) -> anyhow::Result<Vec<u64>> {
        Ok(parse(format, bytes)?
            .iter()
            .map(|request| request.key)
            .collect())
    }

    #[test]
    fn an_arc_line_stands_for_a_run_of_keys() -> anyhow::Result<()> {
        assert_eq!(keys(Format::Arc, b"10 3 0 0\n7 1 0 1\n")?, [10, 11, 12, 7]);
        assert!(keys(Format::Arc, b"10 x 0 0\n").is_err());
        Ok(())
    }

    #[test]
    fn binary_keys_are_big_endian_and_whole() -> anyhow::Result<()> {
        assert_eq!(keys(Format::Words32, &[0, 0, 1, 2, 0, 0, 0, 3])?, [258, 3]);
        assert_eq!(keys(Format::Words64, &[0, 0, 0, 0, 0, 0, 1, 0])?, [256]);
        assert!(keys(Format::Words64, &[0; 12]).is_err());
        Ok(())
    }

    #[test]
    fn marks_between_lines_are_passed_over() -> anyhow::Result<()> {
        assert_eq!(keys(Format::Lines, b"4\r\n*\r\n5\r\n")?, [4, 5]);
        Ok(())
    }

    #[test]
    fn sizes_are_read_where_a_trace_has_them() -> anyhow::Result<()> {
        let requests = parse(Format::TimeKeySize, b"1 0 68\n2 9 7454\n")?;
        assert_eq!(
            requests[1],
            Request {
                key: 9,
                size_bytes: Some(7454)
            }
        );
        Ok(())
    }

    #[test]
    fn the_sample_in_the_repository_is_read() -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
        let paths = in_folder(&folder)?;
        let trace = read(paths.first().context("no sample")?)?;
        assert_eq!(trace.name, "generated-sample");
        assert_eq!(trace.requests.len(), 60_000);
        let distinct: std::collections::HashSet<u64> =
            trace.requests.iter().map(|request| request.key).collect();
        assert!(distinct.len() > 1_000);
        Ok(())
    }
}
