//! The tables of the status: columns without lines, as `ps` and `ip` print them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A column: its title, how its cells are aligned, and how many characters it has at least.
pub(super) struct Column(pub(super) &'static str, pub(super) CellAlignment, pub(super) usize);

/// A table with these columns; a cell may have several lines.
pub(super) fn format_table<const COLUMNS: usize>(columns: &[Column; COLUMNS], rows: Vec<[String; COLUMNS]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(pad));
    for row in rows {
        table.add_row(row);
    }
    for (column, Column(_, alignment, _)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        column.set_cell_alignment(*alignment);
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// The title, as wide as its column is at least.
fn pad(Column(title, alignment, width): &Column) -> String {
    if *alignment == CellAlignment::Right { format!("{title:>width$}") } else { format!("{title:<width$}") }
}

/// Seconds in the unit that people would use: `50 s`, `19 min`, `7 h`, `3 days`.
pub(super) fn format_span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
