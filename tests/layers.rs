//! The structure of the sources: which module may use which.
//!
//! `docs/architecture.md` lists the layers of the daemon in a block marked `layers`, from bottom to top. A module may
//! use modules of lower lines only. And in no folder of the workspace do modules use each other in a circle. All paths
//! count, not only those of `use` lines; so do paths inside macros.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy allows it only in functions that are marked as tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Spacing, TokenStream, TokenTree};
use syn::visit::Visit;

/// The sources that are checked for circles, below the top folder of the project.
const CRATES: [&str; 5] = ["src", "tunnel/src", "sandbox/src", "benches/bench", "packaging/manual/src"];

/// A module's path from the crate's root, such as `["nat", "foreign"]`.
type Module = Vec<String>;

/// All pairs of modules of one crate in which the first names something in the second, with the file that does.
fn uses(sources: &Path) -> BTreeMap<(Module, Module), PathBuf> {
    let files = source_files(sources);
    let modules: BTreeSet<Module> = files.iter().map(|file| module_of(sources, file)).collect();
    let mut uses = BTreeMap::new();
    for file in &files {
        let module = module_of(sources, file);
        let parsed = syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap();
        let mut paths = Paths { module: module.clone(), found: BTreeSet::new() };
        paths.visit_file(&parsed);
        for path in paths.found {
            // The longest beginning that is a module: what follows is an item in it.
            let target =
                (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|path| modules.contains(path));
            if let Some(target) = target.filter(|target| *target != module) {
                uses.insert((module.clone(), target), file.clone());
            }
        }
    }
    uses
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !is_test {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            files.push(path);
        }
    }
    files
}

fn module_of(sources: &Path, file: &Path) -> Module {
    let below = file.strip_prefix(sources).unwrap().with_extension("");
    let mut module: Module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// Collects paths that begin with `crate`, `self` or `super`, from the crate's root, outside of tests.
struct Paths {
    module: Module,
    found: BTreeSet<Module>,
}

impl Paths {
    fn add(&mut self, segments: &[String]) {
        let mut rest = segments;
        let mut path = match rest.first().map(String::as_str) {
            Some("crate") => Module::new(),
            Some("self") => self.module.clone(),
            Some("super") => {
                let mut path = self.module.clone();
                path.pop();
                path
            }
            _ => return,
        };
        rest = &rest[1..];
        while rest.first().is_some_and(|segment| segment == "super") {
            path.pop();
            rest = &rest[1..];
        }
        path.extend(rest.iter().cloned());
        self.found.insert(path);
    }

    fn add_use(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, before)),
        }
    }

    /// Paths in the arguments of a macro, which are not parsed.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        // Colons behind the newest name: two, the first of them joint, are a path separator.
        let (mut colons, mut is_joint) = (0, false);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add(&path);
                        path.clear();
                    }
                    path.push(ident.to_string());
                    (colons, is_joint) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && (colons == 0 || (colons == 1 && is_joint)) => {
                    colons += 1;
                    is_joint = punct.spacing() == Spacing::Joint;
                }
                TokenTree::Group(group) => {
                    self.add_tokens(group.stream());
                    (colons, is_joint) = (0, false);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => (colons, is_joint) = (0, false),
            }
        }
        self.add(&path);
    }
}

fn is_test_code(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    attributes.iter().any(is_test)
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test_code(&module.attrs) {
            // Paths in a module that is written inside another one are seen from there.
            self.module.push(module.ident.to_string());
            syn::visit::visit_item_mod(self, module);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test_code(&item.attrs) {
            self.add_use(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(super)` uses nothing.
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The number of each module's layer, from the bottom.
fn layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, block) = text.split_once("```layers\n").expect("docs/architecture.md has a block marked `layers`");
    let (block, _) = block.split_once("```").expect("the block ends");
    let lines = block.lines().enumerate();
    lines.flat_map(|(number, line)| line.split_whitespace().map(move |name| (name.to_owned(), number))).collect()
}

#[test]
fn modules_use_lower_layers_only() {
    let layers = layers();
    let sources = root().join("src");
    let modules: BTreeSet<String> =
        source_files(&sources).iter().filter_map(|file| module_of(&sources, file).into_iter().next()).collect();
    let programs = BTreeSet::from(["bin".to_owned()]);
    let listed: BTreeSet<String> = layers.keys().cloned().collect();
    assert_eq!(listed, &modules - &programs, "docs/architecture.md lists every module once");
    let mut upward = Vec::new();
    for ((from, to), file) in uses(&sources) {
        let Some(from) = from.first() else { continue };
        let Some(to) = to.first() else {
            // What the root exports is for the programs: a module that uses it hides what it depends on.
            upward.push(format!("{from} uses the crate's root: {}", file.strip_prefix(root()).unwrap().display()));
            continue;
        };
        if let (Some(lower), Some(higher)) = (layers.get(from), layers.get(to)) {
            if from != to && higher >= lower {
                upward.push(format!("{from} uses {to}: {}", file.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(upward.is_empty(), "modules use others that are not below them:\n{}", upward.join("\n"));
}

#[test]
fn no_folder_has_modules_that_use_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for sources in CRATES {
        let mut by_folder: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (from, to) in uses(&root().join(sources)).into_keys() {
            // The folder in which the two part ways, and the two of its modules that they are in.
            let shared = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
            if let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) {
                let folder = by_folder.entry(from[..shared].to_vec()).or_default();
                folder.entry(one.clone()).or_default().insert(other.clone());
            }
        }
        for (folder, uses) in by_folder {
            circles
                .extend(circle(&uses).map(|circle| format!("{sources}/{}: {}", folder.join("/"), circle.join(" -> "))));
        }
    }
    assert!(circles.is_empty(), "modules use each other in a circle:\n{}", circles.join("\n"));
}

/// A circle, if there is one: what is left after modules that use nothing else are taken out, again and again.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left = uses.clone();
    loop {
        let before = left.len();
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, used| used.iter().any(|name| names.contains(name)));
        if left.len() == before {
            break;
        }
    }
    let start = left.keys().next()?.clone();
    let mut path = vec![start];
    loop {
        let next = left[path.last()?].iter().find(|name| left.contains_key(*name))?.clone();
        let known = path.iter().position(|name| *name == next);
        path.push(next);
        if let Some(begin) = known {
            return Some(path.split_off(begin));
        }
    }
}

#[test]
fn a_circle_is_found_and_a_line_is_none() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        circle(&uses)
    };
    assert_eq!(uses(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    assert_eq!(uses(&[("a", "b"), ("b", "c"), ("c", "b")]), Some(["b", "c", "b"].map(str::to_owned).to_vec()));
}

#[test]
fn every_kind_of_path_is_found() {
    let source = r#"
        use crate::a::{b, c as d, e::*};
        use super::f;
        fn g(h: crate::i::J) -> super::super::k::L { self::m::n(); }
        fn o() { println!("{}", P { q: crate::r::S, t: super::u() }); }
        #[cfg(test)]
        mod tests { use crate::never; }
    "#;
    let mut paths = Paths { module: vec!["x".to_owned(), "y".to_owned()], found: BTreeSet::new() };
    paths.visit_file(&syn::parse_file(source).unwrap());
    let found: BTreeSet<String> = paths.found.iter().map(|path| path.join("::")).collect();
    let expected = ["a::b", "a::c", "a::e", "x::f", "i::J", "k::L", "x::y::m::n", "r::S", "x::u"];
    assert_eq!(found, expected.map(str::to_owned).into());
}
