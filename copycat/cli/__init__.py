"""The command `copycat`: run a member, look into files, repair them, measure a machine.

What it is for
--------------
An operator needs a member that runs without writing a program, and tools that explain a directory
whose member does not start. Both are here, and everything that they do is available to a Python
program as well: the command only reads arguments, calls the library, and prints.

Its parts
---------
* `main.py` declares the commands and turns errors into messages and exit codes. Each command
  imports what it needs only when it runs, so `copycat --help` is quick.
* `serve.py` runs one member until a signal stops it, and prints its state as lines or as JSON.
* `log/` reads a log or a member's directory and never changes it: `stat`, `verify`, `show`, `tail`
  and `export`. `log/advice.py` says what damage means and what can be done about it.
* `recover.py` and `compact.py` change files that no process has open. `copycat recover` only shows
  what would be lost, until it is run with `--yes`.
* `demo/` runs a small cluster in processes of its own, kills members, and proves that no
  acknowledged command was lost.
* `tune/` measures settings on this machine, and writes the best ones into a settings file.
* `app.py` finds the state machine that `--app module:Class` names, and `paths.py` makes every path
  absolute before such a module is imported.
* `formatting.py` formats numbers, sizes, times and tables; `progress.py` shows the progress of a
  long run; `output.py` writes the lines of `serve` in a thread of its own.

What happens when a command runs
--------------------------------
`copycat/__main__.py` calls `main.main`. click parses the arguments and calls one function, which
imports the module of the command and runs it. An error of this library is printed as
`error[code]: message` with its hint and the page that explains it. The exit code is 0 for success,
1 for a failure, 2 for wrong usage or settings, 3 when the cluster has no leader, 4 when a
verification found damage, and 130 after an interrupt. Data is written to stdout,
and messages for a person to stderr, so the output of a command can be piped.

What it promises
----------------
The tools that only read need no lock: they can look at a log while a member writes to it, and
`copycat log tail --follow` prints new entries as the log grows. Output for programs (`--json`) has
the same fields in every run. Text that comes from a log or from the network is escaped before it
reaches a terminal. The output is tested (`tests/cli`), and docs/reference/cli.md lists every
option.

What it never does
------------------
A tool never decides by itself which data may be discarded: an option must name the loss. It never
imports a module that a log names; only `--app` names modules. And no reader of the output can stop
a member: when a pipe is full, lines are dropped, and commands are not.
"""
