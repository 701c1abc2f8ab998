//! A configuration as a QR code, for the camera of a phone. Pure.

use qrcode::types::QrError;
use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

/// The columns of a usual terminal.
const WIDTH: usize = 80;
/// The light modules around the code that a scanner may rely on (ISO/IEC 18004 section 6.3.8). Cameras make do with
/// fewer on a screen.
const MARGIN: usize = 4;
/// Pixels of a module in a picture.
const SCALE: usize = 8;
/// White on black, whatever colours the terminal has; and the terminal's own again (ECMA-48, SGR).
const COLOURS: (&str, &str) = ("\x1b[40;97m", "\x1b[0m");

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No code holds so much.
    #[error("the configuration is too long for a QR code; write it into a file by --output")]
    TooLong(#[source] QrError),
    /// The code is too wide for a terminal.
    #[error("the QR code is wider than {WIDTH} columns; write it into a picture by --png")]
    TooWide,
    /// It cannot be encoded as a picture.
    #[error("cannot make the picture")]
    Picture(#[from] png::EncodingError),
}

/// The modules of a code; `true` is dark. They are as secret as the text.
#[derive(Debug)]
pub(super) struct Code {
    modules: Zeroizing<Vec<bool>>,
    width: usize,
}

impl Code {
    /// The code of a configuration, without its comments and blank lines: fewer modules are easier to scan.
    pub(super) fn new(configuration: &str) -> Result<Self, Error> {
        let code = QrCode::with_error_correction_level(without_comments(configuration).as_bytes(), EcLevel::L);
        let code = code.map_err(Error::TooLong)?;
        let width = code.width();
        let modules = code.into_colors().into_iter().map(|color| color == Color::Dark).collect();
        Ok(Self { modules: Zeroizing::new(modules), width })
    }

    /// Whether a module is dark; those around the code are light. Positions are counted from the margin's corner.
    fn is_dark(&self, x: usize, y: usize, margin: usize) -> bool {
        let inside = |at: usize| at.checked_sub(margin).filter(|at| *at < self.width);
        inside(x).zip(inside(y)).is_some_and(|(x, y)| self.modules[y * self.width + x])
    }

    /// Half blocks for a terminal of 80 columns: each character is two modules, one above the other.
    pub(super) fn for_terminal(&self) -> Result<Zeroizing<String>, Error> {
        let margin = (1..=MARGIN).rev().find(|margin| self.width + 2 * margin <= WIDTH).ok_or(Error::TooWide)?;
        let side = self.width + 2 * margin;
        let mut text = Zeroizing::new(String::with_capacity(side * side * 2));
        for y in (0..side).step_by(2) {
            text.push_str(COLOURS.0);
            for x in 0..side {
                // Below the last line is the margin.
                text.push(match (self.is_dark(x, y, margin), self.is_dark(x, y + 1, margin)) {
                    (false, false) => '█',
                    (false, true) => '▀',
                    (true, false) => '▄',
                    (true, true) => ' ',
                });
            }
            text.push_str(COLOURS.1);
            text.push('\n');
        }
        Ok(text)
    }

    /// A picture, in the format PNG.
    pub(super) fn picture(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let side = (self.width + 2 * MARGIN) * SCALE;
        let row = side.div_ceil(8);
        // A bit for each pixel; 1 is white.
        let mut pixels = Zeroizing::new(vec![0_u8; row * side]);
        for (index, byte) in pixels.iter_mut().enumerate() {
            let (x, y) = (index % row * 8, index / row);
            for bit in 0..8 {
                let is_light = !self.is_dark((x + bit) / SCALE, y / SCALE, MARGIN);
                *byte |= u8::from(is_light) << (7 - bit);
            }
        }
        let mut picture = Zeroizing::new(Vec::new());
        let side = u32::try_from(side).expect("a code has at most 177 modules in a line");
        let mut encoder = png::Encoder::new(&mut *picture, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(picture)
    }
}

fn without_comments(configuration: &str) -> Zeroizing<String> {
    let lines = configuration.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Zeroizing::new(lines.fold(String::with_capacity(configuration.len()), |text, line| text + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_usual_configuration_fits_the_terminal() {
        // Two preshared keys' worth of characters more than any client has.
        let text = format!("# a comment\n\n[Interface]\n{}", "x".repeat(425 - "[Interface]\n\n".len()));
        let code = Code::new(&text).unwrap();
        let lines: Vec<String> = code.for_terminal().unwrap().lines().map(str::to_owned).collect();
        assert!(lines.iter().all(|line| line.chars().filter(|c| "█▀▄ ".contains(*c)).count() == 77), "{lines:?}");
        assert_eq!(lines.len(), 39);
        assert!(matches!(Code::new(&"x".repeat(600)).unwrap().for_terminal(), Err(Error::TooWide)));
        assert!(matches!(Code::new(&"x".repeat(3000)), Err(Error::TooLong(_))));
    }
}
