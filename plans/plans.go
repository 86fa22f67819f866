// Package plans holds the plans that come with the program, so that a server
// that loads the weights they were made for can offer them without a file.
package plans

import (
	"embed"
	"fmt"
	"strings"
	"sync"

	"github.com/moaserve/moaserve/runtime/plan"
)

//go:embed *.json
var files embed.FS

// names lists the files, the densest plan of a model first.
var names = []string{
	"smollm2-135m-instruct.moa-50",
	"smollm2-135m-instruct.moa-33",
	"smollm2-135m-instruct.moa-25",
}

var all = sync.OnceValue(func() []*plan.Plan {
	list := make([]*plan.Plan, len(names))
	for i, name := range names {
		data, err := files.ReadFile(name + ".json")
		if err == nil {
			list[i], err = plan.Decode(data)
		}
		if err != nil {
			panic(fmt.Sprintf("the program's own plan %s: %v", name, err)) // excluded by the tests
		}
	}
	return list
})

// All returns every plan, the densest of a model first. The slice is the
// caller's, the plans are shared and must not be changed.
func All() []*plan.Plan { return append([]*plan.Plan(nil), all()...) }

// ByName returns the plan of a file name without its extension, such as
// "smollm2-135m-instruct.moa-50".
func ByName(name string) (*plan.Plan, bool) {
	for i, n := range names {
		if n == name {
			return all()[i], true
		}
	}
	return nil, false
}

// ForWeights returns the plans made for the weights with that SHA-256, in
// hexadecimal, the densest first.
func ForWeights(sha256 string) []*plan.Plan {
	var list []*plan.Plan
	for _, p := range all() {
		if strings.EqualFold(p.Model.WeightsSHA256, sha256) {
			list = append(list, p)
		}
	}
	return list
}

// ForShape returns the plans that fit the model, the densest first. A model
// without a weights hash gets every plan of its dimensions: an answer tells
// whether hashing the weights is worth it.
func ForShape(m plan.Shape) []*plan.Plan {
	var list []*plan.Plan
	for _, p := range all() {
		if p.Check(m) == nil {
			list = append(list, p)
		}
	}
	return list
}
