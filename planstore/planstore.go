// Package planstore keeps plans where a server, or all replicas of one, finds
// them: content-addressed and immutable, with a name that points to the version
// in use.
package planstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/moaserve/moaserve/runtime/plan"
)

// ErrNotFound is what errors.Is finds when a store has no plan of that name or
// version for the model.
var ErrNotFound = errors.New("no such plan")

// Version identifies a plan by its content: the SHA-256 of its encoded form, in
// hexadecimal.
type Version string

// VersionOf returns the version of a plan.
func VersionOf(p *plan.Plan) (Version, error) {
	data, err := p.Encode()
	if err != nil {
		return "", fmt.Errorf("encoding plan %q: %w", p.Name, err)
	}
	sum := sha256.Sum256(data)
	return Version(hex.EncodeToString(sum[:])), nil
}

// Store keeps plans. Plans of different models may have the same name: a plan is
// for a model when [plan.Plan.Check] says so. Implementations are safe for
// concurrent use; the plans they return are shared and must not be changed.
type Store interface {
	// Put keeps a plan and lets its name point to it. What the name pointed to
	// before can still be had by its version. Putting a plan again changes
	// nothing.
	Put(ctx context.Context, p *plan.Plan) (Version, error)
	// Get returns the plan for a model that a name points to ("moa-50"), or that
	// has a version ("moa-50@3f2a...", at least 8 digits of it). It returns
	// ErrNotFound when there is none.
	Get(ctx context.Context, m plan.Shape, ref string) (*plan.Plan, error)
	// List returns the plans for a model that names point to, the densest at the
	// model's context first.
	List(ctx context.Context, m plan.Shape) ([]*plan.Plan, error)
}
