//! A large Go program: generated packages, all of them called, and a good part of the standard library.
//!
//! What makes symbols slow is generated, not padding: functions with locals of many types, inlined helpers, generic
//! functions in several instances, closures, methods, loops, maps, errors. The same number gives the same sources.

use crate::commands::bench::target::{failed, go};
use crate::failure::Failure;
use crate::output;
use crate::provision::BuildFlags;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Functions of one file, and files of one package: what a generator of code writes, several times over.
const FUNCTIONS: usize = 40;
const FILES: usize = 6;
/// The line of the tracepoint ends with this.
const MARK: &str = "// BP spot";
/// File and line with five locals, in every program.
pub(super) const FIVE: (&str, fn(&Program) -> u32) = ("large/main.go", |program| program.five);
const FIVE_MARK: &str = "// BP five";

/// A built program and where its tracepoint goes.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) executable: PathBuf,
    pub(super) bytes: u64,
    /// A file of the program, by a suffix that only it has, and a line of it.
    pub(super) file: String,
    pub(super) line: u32,
    /// Line of [`FIVE`].
    five: u32,
}

/// Builds the program with so many generated packages; once per version of the generator and the toolchain.
pub(super) fn build(packages: usize) -> Result<Program, Failure> {
    let (cache, go) = go()?;
    let sources = sources(packages);
    let mut hash = Sha256::new();
    hash.update(go.version().as_str());
    for (path, text) in &sources {
        hash.update(path);
        hash.update(text);
    }
    let version: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache.root().join(format!("bench-symbols-{version}"));
    let executable = folder.join("program");
    if !executable.is_file() {
        output::note(&format!("building a Go program of {packages} generated packages, once (this takes minutes)"));
        for (path, text) in &sources {
            write(&folder.join("source").join(path), text)?;
        }
        let half = folder.join("program.half");
        go.build(&folder.join("source"), ".", &half, &BuildFlags::with_args(["-trimpath"]))
            .map_err(|e| Failure::Failed(e.to_string()))?;
        std::fs::rename(&half, &executable).map_err(failed("the generated program"))?;
    }
    let bytes = std::fs::metadata(&executable).map_err(failed("the generated program"))?.len();
    let file = format!("p{:03}/f2.go", packages / 2);
    let line = line_of(&sources, &file, MARK)?;
    let five = line_of(&sources, "main.go", FIVE_MARK)?;
    Ok(Program { executable, bytes, file, line, five })
}

fn line_of(sources: &[(String, String)], file: &str, mark: &str) -> Result<u32, Failure> {
    let text = sources.iter().find(|(path, _)| path == file).map(|(_, text)| text.as_str()).unwrap_or_default();
    let line = (1..).zip(text.lines()).find(|(_, line)| line.ends_with(mark)).map(|(number, _)| number);
    line.ok_or_else(|| Failure::Failed(format!("{file} has no line {mark:?}")))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let named = path.display().to_string();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed(&named))?;
    }
    std::fs::write(path, text).map_err(failed(&named))
}

/// The files of the program, by path.
fn sources(packages: usize) -> Vec<(String, String)> {
    let mut files = vec![("go.mod".to_owned(), "module example.com/large\n\ngo 1.21\n".to_owned())];
    let mut main = String::from(MAIN_HEAD);
    for package in 0..packages {
        let _ = writeln!(main, "\t\"example.com/large/p{package:03}\"");
    }
    main.push_str(MAIN_BODY);
    for package in 0..packages {
        let _ = writeln!(main, "\t\tp{package:03}.Run,");
    }
    main.push_str(MAIN_END);
    files.push(("main.go".to_owned(), main));
    for package in 0..packages {
        let mut shared = format!("package p{package:03}\n");
        shared.push_str(SHARED);
        for file in 0..FILES {
            for function in 0..FUNCTIONS {
                let _ = writeln!(shared, "\t\tWork{file}x{function},");
            }
        }
        shared.push_str("\t}\n}\n");
        files.push((format!("p{package:03}/shared.go"), shared));
        for file in 0..FILES {
            files.push((format!("p{package:03}/f{file}.go"), file_of(package, file)));
        }
    }
    files
}

fn file_of(package: usize, file: usize) -> String {
    let mut text = format!(
        "package p{package:03}\n\nimport (\n\t\"errors\"\n\t\"fmt\"\n\t\"sort\"\n\t\"strings\"\n\t\"time\"\n)\n"
    );
    for function in 0..FUNCTIONS {
        let n = (package * FILES + file) * FUNCTIONS + function;
        let name = format!("{file}x{function}");
        let mark = if file == 2 && function == FUNCTIONS / 2 { format!(" {MARK}") } else { String::new() };
        let body = BODY
            .replace("@NAME", &name)
            .replace("@MARK", &mark)
            .replace("@A", &(n % 97 + 2).to_string())
            .replace("@B", &(n % 31 + 3).to_string())
            .replace("@TYPE", ["int32", "uint64", "float64", "int16"][n % 4]);
        text.push_str(&body);
    }
    text
}

const MAIN_HEAD: &str = r#"package main

import (
	"bufio"
	_ "crypto/tls"
	_ "database/sql"
	_ "encoding/json"
	_ "encoding/xml"
	"fmt"
	_ "go/types"
	_ "html/template"
	_ "image/png"
	"io"
	_ "net/http"
	"os"

"#;

const MAIN_BODY: &str = r#")

func main() {
	all := []func(int) int{
"#;

const MAIN_END: &str = r#"	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		total := 0
		for n := 0; n < 1000; n++ {
			total += five(n, in.Text(), n%2 == 0, []int{n, n + 1, n + 2}, float64(n)/2)
		}
		for n, run := range all {
			total += run(n)
		}
		fmt.Println(total)
	}
}

//go:noinline
func five(id int, name string, even bool, values []int, price float64) int {
	fmt.Fprint(io.Discard, id, name, even, values, price) // BP five
	return id + len(name) + len(values) + int(price)
}
"#;

const SHARED: &str = r#"
type number interface {
	~int | ~int16 | ~int32 | ~int64 | ~uint64 | ~float64
}

func sum[T number](values []T) (total T) {
	for _, value := range values {
		total += value
	}
	return total
}

func keep[K comparable, V any](m map[K]V, f func(K, V) bool) map[K]V {
	kept := make(map[K]V, len(m))
	for k, v := range m {
		if f(k, v) {
			kept[k] = v
		}
	}
	return kept
}

// Run calls everything in the package.
func Run(n int) int {
	total := 0
	for _, work := range All() {
		total += work(n, "x")
	}
	return total
}

// All is everything in the package.
func All() []func(int, string) int {
	return []func(int, string) int{
"#;

const BODY: &str = r#"
type item@NAME struct {
	ID    int
	Name  string
	Tags  []string
	Price @TYPE
	Next  *item@NAME
	At    time.Duration
	Attrs map[string]int
}

func (i *item@NAME) describe(prefix string) string {
	if i == nil {
		return prefix
	}
	parts := append([]string{prefix, i.Name}, i.Tags...)
	return strings.Join(parts, "/")
}

func (i item@NAME) cost(by @TYPE) @TYPE {
	price := i.Price * by
	if price > @B {
		price -= @B
	}
	return price
}

func helper@NAME(a, b int) int { return a*@A + b%@B }

// Work@NAME is called by All.
func Work@NAME(n int, name string) int {
	first := &item@NAME{ID: n, Name: name, Tags: []string{"a", "b"}, Price: @A, Attrs: map[string]int{name: n}}
	total := helper@NAME(n, @A)
	prices := make([]@TYPE, 0, 4)
	for i := 0; i < @B%4+1; i++ {
		next := &item@NAME{ID: i, Name: fmt.Sprint(name, i), Next: first, Price: first.cost(2)}
		label := next.describe(name)
		total += len(label) + helper@NAME(i, total)@MARK
		prices = append(prices, next.Price)
		first = next
	}
	whole := sum(prices)
	by := map[string]*item@NAME{first.Name: first, name: first.Next}
	big := keep(by, func(key string, it *item@NAME) bool { return len(key) > @B%3 && it != nil && it.ID < total })
	keys := make([]string, 0, len(big))
	for key := range big {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(a, b int) bool { return keys[a] < keys[b] })
	switch {
	case total%@A == 0:
		if err := check@NAME(first, keys); err != nil {
			total -= len(err.Error())
		}
	case whole > @B:
		total += int(whole)
	default:
		defer func() { first.At = time.Duration(total) }()
	}
	return total
}

func check@NAME(it *item@NAME, keys []string) error {
	if it == nil || it.Next == nil {
		return errors.New("no item @NAME")
	}
	for n, key := range keys {
		if key == it.Name {
			return fmt.Errorf("key %d (%s) of @NAME: %w", n, key, errors.ErrUnsupported)
		}
	}
	return nil
}
"#;
