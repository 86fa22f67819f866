// Command moaserve serves Llama-family language models over the OpenAI API and
// runs their attention under MoA plans.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker (-X main.version=...).
var version = "dev"

// cli is the command line. Every flag is also an environment variable
// (MOASERVE_ and the flag's name; chat's model and plan are MOASERVE_CHAT_...) and a key of
// the configuration file.
type cli struct {
	Config      kong.ConfigFlag  `help:"Read flags from this YAML file: serve: {listen: ..., model: ...}." placeholder:"FILE" type:"existingfile"`
	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`

	Serve   serveCmd   `cmd:"" help:"Serve a model over the OpenAI API."`
	Chat    chatCmd    `cmd:"" help:"Chat with a server in the terminal; attach files."`
	Bench   benchCmd   `cmd:"" help:"Measure prefill and decode speed of a model."`
	Plan    planCmd    `cmd:"" help:"Show, check and import plans."`
	Models  modelsCmd  `cmd:"" help:"List model files and fetch the demonstration model."`
	Health  healthCmd  `cmd:"" help:"Ask a server whether it works (for container health checks)."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	fmt.Println("moaserve", version)
	return nil
}

const description = `An OpenAI-compatible server for long documents. Every KV head keeps only its own
span of the context, as a MoA plan says: half the KV cache or less, and more tokens a second the longer the document.

  moaserve serve --model model.gguf                    the plan that fits the model, or dense
  moaserve serve --model model.gguf --plan uniform:50%
  moaserve serve --model ./folder --plan plan.json --listen 0.0.0.0:8080 --api-keys secret

Flags can also be set by environment (MOASERVE_LISTEN=...) and in a YAML file (--config) that has
them under their commands (serve: {listen: ...}).`

// newParser returns the parser of the command line. The command line wins over
// the environment, the environment over a configuration file.
func newParser(c *cli) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("moaserve"),
		kong.Description(description),
		kong.ShortUsageOnError(),
		kong.DefaultEnvars("MOASERVE"),
		kong.NamedMapper("model", kong.MapperFunc(modelMapper)),
		kong.Vars{"synthetic": syntheticNames(), "version": "moaserve " + version},
		kong.Configuration(loadConfig, "/etc/moaserve/config.yaml", "~/.config/moaserve/config.yaml"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
	)
}

func main() {
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		panic(err) // the command line's own declaration is wrong
	}
	parsed, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)

	// The first signal drains, a second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.Run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "moaserve: %v\n", err)
		os.Exit(1)
	}
}
