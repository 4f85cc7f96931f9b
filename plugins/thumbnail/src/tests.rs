//! Native tests of the thumbnail plugin with generated pictures.

use super::*;
use image::{GrayImage, ImageFormat, Rgb, RgbImage, load_from_memory};

fn host() -> MockHost {
    MockHost::new(plugin())
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Returns a picture that is red on the left and blue on the right.
fn flag(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        Rgb(if x < width / 2 {
            [255, 0, 0]
        } else {
            [0, 0, 255]
        })
    })
}

fn size(host: MockHost, picture: Vec<u8>) -> (u32, u32) {
    let png = host.run("thumbnail", picture).unwrap();
    assert_eq!(image::guess_format(&png).unwrap(), ImageFormat::Png);
    let small = load_from_memory(&png).unwrap();
    (small.width(), small.height())
}

fn error_of(host: MockHost, payload: impl Into<Vec<u8>>) -> String {
    let error = host.run("thumbnail", payload).unwrap_err();
    assert!(error.is_permanent(), "{error}");
    error.message().to_owned()
}

#[test]
fn the_aspect_ratio_is_kept() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let picture = encoded(flag(600, 300), format);
        assert_eq!(size(host(), picture.clone()), (128, 64));
        let wide = host().metadata("width", "50");
        assert_eq!(size(wide, picture.clone()), (50, 25));
        let both = host().metadata("width", "400").metadata("height", "30");
        assert_eq!(size(both, picture), (60, 30));
    }
}

#[test]
fn the_content_is_kept() {
    let png = host()
        .run("thumbnail", encoded(flag(600, 300), ImageFormat::Png))
        .unwrap();
    let small = load_from_memory(&png).unwrap().into_rgb8();
    assert_eq!(small.get_pixel(10, 32), &Rgb([255, 0, 0]));
    assert_eq!(small.get_pixel(118, 32), &Rgb([0, 0, 255]));
}

#[test]
fn a_small_picture_is_not_enlarged() {
    let picture = encoded(GrayImage::new(20, 10), ImageFormat::Png);
    assert_eq!(size(host(), picture), (20, 10));
}

#[test]
fn a_photograph_is_rotated_upright() {
    // An EXIF block with orientation 6, directly after the start of the JPEG.
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\
        \0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut picture = encoded(flag(600, 300), ImageFormat::Jpeg);
    picture.splice(2..2, exif.iter().copied());
    let tall = host().metadata("height", "100");
    assert_eq!(size(tall, picture), (50, 100));
}

#[test]
fn an_invalid_picture_fails_permanently() {
    let start = "the payload cannot be read as a PNG or JPEG picture: ";
    let png = encoded(flag(60, 30), ImageFormat::Png);
    for payload in [&b""[..], b"some text", b"GIF89a", &png[..60]] {
        let message = error_of(host(), payload);
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn a_decompression_bomb_is_rejected_by_its_header() {
    // The header of a valid picture, changed to 60,000 pixels a side.
    let mut png = encoded(flag(60, 30), ImageFormat::Png);
    let side = 60_000u32.to_be_bytes();
    png[16..24].copy_from_slice(&[side, side].concat());
    let crc = crc(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&crc);
    assert_eq!(
        error_of(host(), png),
        "the picture is too large: 60000 × 60000 pixels do not fit into 48 MiB"
    );
}

#[test]
fn the_size_limit_is_configurable() {
    let host = host().config("max_decoded_mib", "1");
    assert_eq!(
        error_of(host, encoded(flag(1000, 500), ImageFormat::Jpeg)),
        "the picture is too large: 1000 × 500 pixels do not fit into 1 MiB"
    );
}

#[test]
fn metadata_out_of_range_fails_permanently() {
    let picture = encoded(flag(60, 30), ImageFormat::Png);
    assert_eq!(
        error_of(host().metadata("width", "0"), picture.clone()),
        "metadata `width` = 0: not within 1 to 4096"
    );
    assert_eq!(
        error_of(host().metadata("height", "tall"), picture),
        "metadata `height` = \"tall\": invalid digit found in string"
    );
}

/// Returns the checksum of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
