// Package plans holds the plans that come with the program, so that a server
// that loads the weights they were made for can offer them without a file. Package
// planstore finds them.
package plans

import (
	"embed"
	"fmt"
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
