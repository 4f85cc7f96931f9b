//! Makes a small PNG of a PNG or JPEG picture. The metadata `width` and `height` set the bounding box. The
//! aspect ratio is kept, and a picture that fits is not enlarged.

use hostel_sdk::prelude::*;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;

/// The default sides of the box in pixels.
const DEFAULT_SIDE: u32 = 128;
/// The largest side of the box; the result of a task has a size limit.
const MAX_SIDE: u32 = 4096;
/// The default limit of a decoded picture in MiB: 16 million pixels of a photograph. With the default
/// memory of 64 MiB for a task, this leaves room for two copies of the payload (the JPEG decoder makes
/// one). A progressive JPEG needs twice as much, so a large one can still exceed the memory limit.
const DEFAULT_DECODED_MIB: u64 = 48;

fn thumbnail(picture: Vec<u8>, task: &Task) -> Result<Vec<u8>> {
    let (width, height) = bounds(task)?;
    let decoded_mib = config::get_as("max_decoded_mib")?.unwrap_or(DEFAULT_DECODED_MIB);
    let (picture, orientation) = decode(picture, decoded_mib)?;

    // Rotating the small picture is cheaper, so the box is rotated before the picture is resized.
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

/// Returns the bounding box. If the task sets one side only, the other is unbounded.
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

/// Returns the stored picture and the orientation that its metadata requests.
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
    // Checked before memory is allocated: a few bytes of PNG can claim gigabytes.
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > max {
        return Err(TaskError::permanent(format!(
            "the picture is too large: {width} × {height} pixels do not fit into {max_mib} MiB"
        )));
    }
    // A picture with invalid metadata is not rotated.
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
