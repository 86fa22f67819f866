package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// configFile is a YAML file of flags: a flag of a command under the command's name
// (serve: {listen: ...}), or in one word (serve-listen: ...).
type configFile struct {
	values map[string]any // by command and flag in one word, such as serve-listen
}

var _ kong.Resolver = (*configFile)(nil)

// loadConfig reads a configuration file.
func loadConfig(r io.Reader) (kong.Resolver, error) {
	var tree map[string]any
	if err := yaml.NewDecoder(r).Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the configuration is no YAML map: %w", err)
	}
	c := &configFile{values: make(map[string]any)}
	c.flatten("", tree)
	return c, nil
}

func (c *configFile) flatten(prefix string, tree map[string]any) {
	for key, value := range tree {
		if child, ok := value.(map[string]any); ok {
			c.flatten(prefix+key+"-", child)
			continue
		}
		c.values[prefix+key] = value
	}
}

// Validate implements [kong.Resolver]: a key that is no flag is an error. Ignored, it
// could leave a server without the API keys that its operator believes to have set.
func (c *configFile) Validate(app *kong.Application) error {
	known := make(map[string]bool)
	var collect func(prefix string, n *kong.Node)
	collect = func(prefix string, n *kong.Node) {
		for _, f := range n.Flags {
			known[prefix+f.Name] = true
		}
		for _, child := range n.Children {
			collect(prefix+child.Name+"-", child)
		}
	}
	collect("", app.Node)
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if known[key] {
			continue
		}
		if name := strings.ReplaceAll(key, "_", "-"); known[name] {
			return fmt.Errorf("the configuration has %q; the flag is %q", key, name)
		}
		if known["serve-"+key] {
			return fmt.Errorf("the configuration has %q outside of a command: put it under serve", key)
		}
		return fmt.Errorf("the configuration has %q, and there is no such flag: see --help of the command that it is for", key)
	}
	return nil
}

// Resolve implements [kong.Resolver]. Kong would let the file win over the environment;
// here a flag whose variable is set is left alone.
func (c *configFile) Resolve(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	key := flag.Name
	for n := parent.Node(); n != nil && n.Type != kong.ApplicationNode; n = n.Parent {
		key = n.Name + "-" + key
	}
	value := c.values[key]
	if flag.Target.Type() == reflect.TypeFor[time.Duration]() {
		if _, text := value.(string); value != nil && !text { // a number would be nanoseconds
			return nil, fmt.Errorf("%s: %v has no unit; write %vs for seconds", key, value, value)
		}
	}
	return value, nil
}
