//! Columns of text, folded into blocks where they would be wider than the terminal.

/// Between two columns.
const GAP: usize = 2;

/// A table of text: the first column is the name of its row and comes again in each block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grid {
    /// Head and cells of each column.
    columns: Vec<Vec<String>>,
}

impl Grid {
    /// With the names of the rows, under their head.
    pub(crate) fn new(head: &str, names: impl IntoIterator<Item = String>) -> Self {
        let column = [head.to_owned()].into_iter().chain(names).collect();
        Self { columns: vec![column] }
    }

    /// Adds a column with a cell for each row.
    pub(crate) fn column(&mut self, head: &str, cells: impl IntoIterator<Item = String>) {
        let column: Vec<String> = [head.to_owned()].into_iter().chain(cells).collect();
        debug_assert_eq!(column.len(), self.columns[0].len(), "a cell for each row");
        self.columns.push(column);
    }

    /// Whether there is nothing but names.
    pub(crate) fn is_empty(&self) -> bool {
        self.columns.len() < 2
    }

    /// Its lines, each at most `width` wide where the columns allow; blocks apart by an empty line.
    pub(crate) fn lines(&self, width: usize) -> Vec<String> {
        let names = &self.columns[0];
        let mut lines = Vec::new();
        for block in self.blocks(width) {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            for (at, name) in names.iter().enumerate() {
                let mut line = format!("{name:<width$}", width = width_of(names));
                for column in &self.columns[block.clone()] {
                    line.push_str(&format!(
                        "{:>width$}",
                        column[at],
                        width = GAP + width_of(column)
                    ));
                }
                // A row that has something to say in other blocks only.
                if !line.trim_end().is_empty() {
                    lines.push(line.trim_end().to_owned());
                }
            }
        }
        lines
    }

    /// Columns that go side by side.
    fn blocks(&self, width: usize) -> Vec<std::ops::Range<usize>> {
        let name = width_of(&self.columns[0]);
        let (mut blocks, mut start, mut used) = (Vec::new(), 1, name);
        for (at, column) in self.columns.iter().enumerate().skip(1) {
            let needed = GAP + width_of(column);
            if used + needed > width && at > start {
                blocks.push(start..at);
                (start, used) = (at, name);
            }
            used += needed;
        }
        if start < self.columns.len() {
            blocks.push(start..self.columns.len());
        }
        blocks
    }
}

fn width_of(column: &[String]) -> usize {
    column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)
}

/// Breaks text at spaces into lines of at most `width`, those after the first indented.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        let used = line.chars().count();
        if line.trim().is_empty() {
            line.push_str(word);
        } else if used + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{indent}{word}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: [&str; 2]) -> [String; 2] {
        cells.map(str::to_owned)
    }

    #[test]
    fn columns_that_do_not_fit_go_below_with_the_names_again() {
        let mut grid = Grid::new("who", column(["a", "bb"]));
        grid.column("one", column(["1", "22"]));
        grid.column("three", column(["3", "4"]));
        let wide = ["who  one  three", "a      1      3", "bb    22      4"];
        assert_eq!(grid.lines(40), wide);
        let narrow =
            ["who  one", "a      1", "bb    22", "", "who  three", "a        3", "bb       4"];
        assert_eq!(grid.lines(12), narrow);
    }

    #[test]
    fn a_row_without_a_name_is_left_out_where_it_says_nothing() {
        let mut grid = Grid::new("who", column(["a", ""]));
        grid.column("one", column(["1", "0-2"]));
        grid.column("three", column(["3", ""]));
        assert_eq!(
            grid.lines(8),
            ["who  one", "a      1", "     0-2", "", "who  three", "a        3"]
        );
    }

    #[test]
    fn long_words_get_a_line_of_their_own() {
        assert_eq!(
            wrap("one two-and-a-half three", 8, "  "),
            ["one", "  two-and-a-half", "  three"]
        );
    }
}
