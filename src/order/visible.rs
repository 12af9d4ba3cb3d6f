//! Whether a text shows anything to people. One judge for whatever enters: a POST, a message, a command.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory as Category},
};

/// What no property tells: characters that count as letters or symbols and are drawn as nothing. Braille without dots,
/// the notehead that is none, two blanks among the hieroglyphs, and what stands for an object that was left out.
pub(super) const BLANKS: [char; 5] = ['\u{2800}', '\u{fffc}', '\u{1d159}', '\u{13441}', '\u{13442}'];

/// Whether at least one character can be seen by itself. Joiners, marks and selectors around it are none of our business.
pub(super) fn has_visible(text: &str) -> bool {
    text.chars().any(is_visible)
}

fn is_visible(char: char) -> bool {
    // Most of what is ever asked.
    if char.is_ascii() {
        return char.is_ascii_graphic();
    }
    !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
        && !BLANKS.contains(&char)
        && match CodePointMapData::<Category>::new().get(char) {
            Category::Control
            | Category::Format
            | Category::SpaceSeparator
            | Category::LineSeparator
            | Category::ParagraphSeparator
            | Category::NonspacingMark
            | Category::SpacingMark
            | Category::EnclosingMark => false,
            // A letter that is newer than this table is one all the same; a noncharacter never will be.
            Category::Unassigned => !is_noncharacter(char),
            _ => true,
        }
}

/// The last two of each plane, and 32 more.
fn is_noncharacter(char: char) -> bool {
    u32::from(char) & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&char)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Joiners, fillers, fences, marks, selectors, tags, spaces: what was found in names that nobody can read.
    const UNSEEN: [&str; 24] = [
        "\u{200b}",
        "\u{2800}",
        "\u{3164}",
        "\u{ad}",
        "\u{feff}",
        "\u{115f}",
        "\u{1160}",
        "\u{17b4}\u{17b5}",
        "\u{180e}",
        "\u{2060}\u{2061}\u{2062}\u{2063}\u{2064}\u{2065}",
        "\u{ffa0}",
        "\u{fe0f}",
        "\u{e0100}",
        "\u{e0041}\u{e007f}",
        "\u{301}",
        "\u{20dd}",
        "\u{93e}",
        "\u{200d}\u{200c}\u{34f}",
        "\u{202e}\u{2066}\u{200f}\u{61c}",
        "\u{fff9}\u{fffb}",
        "\u{fffc}",
        "\u{ffff}",
        "\u{2028}\u{a0}\u{3000}",
        "\u{1d159}\u{13441}",
    ];

    #[test]
    fn nothing_to_see_is_nothing_together_too() {
        for text in UNSEEN {
            assert!(!has_visible(text), "{}", text.escape_unicode());
        }
        assert!(!has_visible(&UNSEEN.concat()));
        assert!(!has_visible(""));
    }

    #[test]
    fn names_of_all_scripts_can_be_seen() {
        for text in [
            "Ada",
            "مها",
            "東京都",
            "นก",
            "क्षि",
            "👩\u{200d}🍳",
            "❤\u{fe0f}",
            "é",
            "7",
            "?",
            "\u{2801}",
            "e\u{301}",
            "می\u{200c}خواهم",
        ] {
            assert!(has_visible(text), "{text}");
        }
    }

    proptest! {
        /// One character that can be seen is enough, whatever stands around it; without one nothing is.
        #[test]
        fn one_is_enough(
            before in prop::collection::vec(prop::sample::select(&UNSEEN[..]), 0..5),
            seen in "[a-zé東न😀]",
            after in prop::collection::vec(prop::sample::select(&UNSEEN[..]), 0..5),
        ) {
            prop_assert!(!has_visible(&[before.concat(), after.concat()].concat()));
            prop_assert!(has_visible(&[before.concat(), seen, after.concat()].concat()));
        }

        /// What Unicode calls a letter, a number, a symbol or punctuation, and draws, can be seen.
        #[test]
        fn what_is_drawn_can_be_seen(char in "[\\p{L}\\p{N}\\p{S}\\p{P}]") {
            let char = char.chars().next().expect("one");
            let ignored = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char);
            prop_assert_eq!(is_visible(char), !ignored && !BLANKS.contains(&char), "{}", char.escape_unicode());
        }
    }
}
