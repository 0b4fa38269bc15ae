//! Manifests and arguments, drawn: mostly near the bounds, and of every wrong type.

use catalogue::Manifest;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::HEAD;

/// Everything that one argument could be, of which its schema's type chooses one; `wild` decides whether it may.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    there: bool,
    wild: Option<Value>,
    text: String,
    number: i64,
    flag: bool,
    list: Vec<(String, i64, bool)>,
    file: Map<String, Value>,
}

impl Draw {
    fn value(&self, schema: &Value) -> Value {
        if let Some(wild) = &self.wild {
            return wild.clone();
        }
        match schema["type"].as_str().unwrap() {
            "array" => (self.list.iter())
                .map(|(text, number, flag)| single(&schema["items"], text, *number, *flag))
                .collect(),
            "object" => Value::Object(self.file.clone()),
            _ => single(schema, &self.text, self.number, self.flag),
        }
    }
}

fn single(schema: &Value, text: &str, number: i64, flag: bool) -> Value {
    match schema["type"].as_str().unwrap() {
        "integer" => json!(number),
        "boolean" => json!(flag),
        _ => json!(text),
    }
}

fn text() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "", "", "a", "ab", "abc", "é", "e\u{301}", "日本", "😀", "7", "٣", "_", " ", "\u{a0}", "\u{feff}", "-", "K",
        "\u{212a}", "ſ", "\n", "/var", "text", "ssh",
    ]);
    (piece.clone(), piece).prop_map(|(one, other)| format!("{one}{other}"))
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -2..8_i64,
        1 => select(vec![-9_007_199_254_740_991, 9_007_199_254_740_991, 5000, 5001, 262_144, 262_145]),
    ]
}

fn wild() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => text().prop_map(Value::from),
        4 => number().prop_map(Value::from),
        4 => any::<bool>().prop_map(Value::from),
        1 => select(vec![json!(null), json!(1.0), json!(2.5), json!(1_u64 << 53), json!(u64::MAX), json!(i64::MIN)]),
    ];
    leaf.prop_recursive(3, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(select(vec!["path", "sha256", "a", "é/~"]), inner, 0..3).prop_map(|parts| {
                parts
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

fn file() -> impl Strategy<Value = Map<String, Value>> {
    let digest = |unit: &str, times| Value::from(unit.repeat(times));
    let digests = vec![
        digest("0a", 32),
        digest("0a", 32),
        digest("0A", 32),
        digest("0", 63),
        digest("0", 65),
        digest("é", 32),
        digest("é", 64),
        json!(7),
    ];
    let paths = vec![
        json!("/x"),
        json!("/xyz"),
        json!("/éééé"),
        json!("/"),
        json!("/xyzzy"),
        json!(true),
    ];
    (
        prop::option::weighted(0.9, select(paths)),
        prop::option::weighted(0.9, select(digests)),
        prop::option::weighted(0.1, wild()),
    )
        .prop_map(|(path, sha256, other)| {
            [("path", path), ("sha256", sha256), ("other", other)]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect()
        })
}

prop_compose! {
    fn draw()(
        there in prop::bool::weighted(0.85),
        wild in prop::option::weighted(0.15, wild()),
        text in text(),
        number in number(),
        flag in any::<bool>(),
        list in prop::collection::vec((text(), number(), any::<bool>()), 0..5),
        file in file(),
    ) -> Draw {
        Draw { there, wild, text, number, flag, list, file }
    }
}

/// What a property of each place gets, and sometimes an argument that is none of them.
pub(super) type Arguments = (Vec<Draw>, Option<(String, Value)>);

/// Arguments for up to five properties.
pub(super) fn arguments() -> impl Strategy<Value = Arguments> {
    let stranger = (
        select(vec!["zz", "A", "a/b~c", "\u{202e}"]).prop_map(str::to_owned),
        wild(),
    );
    (prop::collection::vec(draw(), 5), prop::option::weighted(0.05, stranger))
}

/// The arguments for the properties that this manifest has.
pub(super) fn drawn(manifest: &Manifest, (draws, stranger): &Arguments) -> Map<String, Value> {
    let schema = manifest.input_schema();
    let properties = schema["properties"].as_object().unwrap();
    let mut args: Map<String, Value> = (properties.iter().zip(draws))
        .filter(|(_, draw)| draw.there)
        .map(|((name, property), draw)| (name.clone(), draw.value(property)))
        .collect();
    args.extend(stranger.clone());
    args
}

/// Keywords of one value, as they stand in a manifest.
fn keywords(items: bool) -> impl Strategy<Value = String> {
    let fragment = select(vec![
        "",
        "a",
        "é",
        "[a-z]+",
        "\\\\d",
        "\\\\w*",
        "\\\\s",
        "\\\\D",
        "\\\\W",
        "\\\\S+",
        "[\\\\d_]",
        "[^\\\\w]",
        "[^\\\\s\\\\d]",
        ".",
        ".*",
        "(?:a|é)?",
        "(?i:k)",
        "(?i:\\\\w)",
        "\\\\p{L}",
        "|",
    ]);
    let pattern =
        prop::collection::vec(fragment, 1..4).prop_map(|parts| format!("pattern = \"^(?:{})$\"", parts.concat()));
    let quoted = || {
        text().prop_filter_map("nothing hidden", |text| {
            (!text.contains(['\n', '\u{a0}', '\u{feff}'])).then(|| format!("\"{text}\""))
        })
    };
    let choice = |one: BoxedStrategy<String>| {
        let many = prop::collection::btree_set(one.clone(), 1..4);
        (
            prop::option::weighted(
                0.2,
                many.prop_map(|all| format!("enum = [{}]", Vec::from_iter(all).join(", "))),
            ),
            prop::option::weighted(0.1, one.clone().prop_map(|one| format!("const = {one}"))),
            prop::option::weighted(0.1, one.prop_map(|one| format!("default = {one}")))
                .prop_map(move |default| default.filter(|_| !items)),
        )
    };
    let number = || number().prop_map(|number| number.to_string()).boxed();
    let bound =
        |key: &'static str, weight| prop::option::weighted(weight, number().prop_map(move |n| format!("{key} = {n}")));
    let size = |key: &'static str, least: u8, weight| {
        prop::option::weighted(weight, (least..5).prop_map(move |n| format!("{key} = {n}")))
    };
    let all = |kind: &'static str, parts: Vec<Option<String>>| {
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        [vec![format!("type = \"{kind}\"")], parts].concat().join(", ")
    };
    prop_oneof![
        (
            choice(quoted().boxed()),
            size("minLength", 0, 0.4),
            size("maxLength", 1, 0.9),
            prop::option::weighted(0.4, pattern)
        )
            .prop_map(move |((a, b, c), d, e, f)| all("string", vec![a, b, c, d, e, f])),
        (choice(number()), bound("minimum", 0.4), bound("maximum", 0.4))
            .prop_map(move |((a, b, c), d, e)| all("integer", vec![a, b, c, d, e])),
        choice(select(vec!["true".to_owned(), "false".to_owned()]).boxed())
            .prop_map(move |(a, b, c)| all("boolean", vec![a, b, c])),
    ]
}

fn property() -> impl Strategy<Value = String> {
    let size = |key: &'static str, least: u8| (least..5).prop_map(move |n| format!("{key} = {n}"));
    let unique = prop::option::of(any::<bool>().prop_map(|unique| format!("uniqueItems = {unique}")));
    let array = (
        keywords(true),
        size("maxItems", 1),
        prop::option::of(size("minItems", 0)),
        unique,
    )
        .prop_map(|(items, most, least, unique)| {
            let rest: Vec<String> = [Some(most), least, unique].into_iter().flatten().collect();
            format!("type = \"array\", items = {{ {items} }}, {}", rest.join(", "))
        });
    prop_oneof![3 => keywords(false), 1 => array]
}

/// A manifest with these arguments, and perhaps a file that is approved by its content.
pub(super) fn manifest() -> impl Strategy<Value = String> {
    (
        prop::collection::vec((property(), any::<bool>()), 0..4),
        prop::bool::weighted(0.25),
    )
        .prop_map(|(properties, pin)| {
            let mut required: Vec<String> = Vec::new();
            let mut lines = String::new();
            for (index, (property, needed)) in properties.iter().enumerate() {
                if *needed && !property.contains("default") {
                    required.push(format!("\"p{index}\""));
                }
                lines.push_str(&format!("properties.p{index} = {{ {property} }}\n"));
            }
            let (mut file, mut stdin) = ("", "");
            if pin {
                required.push("\"a_file\"".to_owned());
                lines.push_str("properties.a_file = { type = \"string\", minLength = 2, maxLength = 5 }\n");
                (file, stdin) = (
                    "[file.a_file]\nwithin = [\"/x\"]\npin = true\n",
                    "stdin = \"{a_file}\"\n",
                );
            }
            let required = required.join(", ");
            format!(
                "{HEAD}[args]\nrequired = [{required}]\n{lines}{file}[exec]\nprogram = \"/bin/x\"\nargv = []\n{stdin}"
            )
        })
}
