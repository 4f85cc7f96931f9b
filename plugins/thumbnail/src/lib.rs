//! Makes a small PNG of a PNG or JPEG picture. Metadata `width` and `height` say what it has to fit
//! into; the shape of the picture stays, and a picture that fits already is not enlarged.

use hostel_sdk::prelude::*;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;

/// The sides of the box, in pixels, where the metadata names neither.
const DEFAULT_SIDE: u32 = 128;
/// What a side is at most: the result of a task has a size limit too.
const MAX_SIDE: u32 = 4096;
/// How large a decoded picture may be, in MiB: 16 million pixels of a photograph. With the default
/// memory of 64 MiB for a task this leaves room for two copies of the payload (the JPEG decoder
/// makes one). A progressive JPEG needs as much again, so a large one can still meet that limit.
const DEFAULT_DECODED_MIB: u64 = 48;

fn thumbnail(picture: Vec<u8>, task: &Task) -> Result<Vec<u8>> {
    let (width, height) = bounds(task)?;
    let decoded_mib = config::get_as("max_decoded_mib")?.unwrap_or(DEFAULT_DECODED_MIB);
    let (picture, orientation) = decode(picture, decoded_mib)?;

    // Turning the small picture is cheaper than turning the large one, so the box turns first.
    let (width, height) = match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => (height, width),
        _ => (width, height),
    };
    let mut small = if picture.width() > width || picture.height() > height {
        picture.thumbnail(width, height)
    } else {
        picture
    };
    small.apply_orientation(orientation);

    let mut png = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive);
    small.write_with_encoder(encoder)?;
    Ok(png)
}

/// The box to fit into. If the task names one side only, the other is free.
fn bounds(task: &Task) -> Result<(u32, u32)> {
    let side = |key| match task.metadata_as::<u32>(key)? {
        Some(side) if !(1..=MAX_SIDE).contains(&side) => Err(TaskError::permanent(format!(
            "metadata `{key}` = {side}: not within 1 to {MAX_SIDE}"
        ))),
        side => Ok(side),
    };
    Ok(match (side("width")?, side("height")?) {
        (None, None) => (DEFAULT_SIDE, DEFAULT_SIDE),
        (width, height) => (width.unwrap_or(MAX_SIDE), height.unwrap_or(MAX_SIDE)),
    })
}

/// The picture as it is stored, and how a camera said that it has to be turned.
fn decode(picture: Vec<u8>, max_mib: u64) -> Result<(DynamicImage, Orientation)> {
    let unreadable = |error| {
        TaskError::permanent(format!(
            "the payload cannot be read as a PNG or JPEG picture: {error}"
        ))
    };
    let max = max_mib.saturating_mul(1 << 20);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max);

    let mut reader = ImageReader::new(Cursor::new(picture)).with_guessed_format()?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    // Looked at before anything of that size is allocated: a few bytes of PNG can claim gigabytes.
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > max {
        return Err(TaskError::permanent(format!(
            "the picture is too large: {width} × {height} pixels do not fit into {max_mib} MiB"
        )));
    }
    // A picture whose notes cannot be read is shown as it is stored.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    Ok((picture, orientation))
}

hostel_sdk::plugin! {
    task("thumbnail", thumbnail)
        .description("PNG or JPEG in, small PNG out; metadata `width` and `height` are the box (128 × 128)")
        .timeout(Duration::from_secs(30))
        .attempts(3),
}

#[cfg(test)]
mod tests;
