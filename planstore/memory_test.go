package planstore_test

import (
	"testing"

	"github.com/moaserve/moaserve/planstore"
	"github.com/moaserve/moaserve/planstore/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) planstore.Store {
		s, err := planstore.NewMemory()
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
