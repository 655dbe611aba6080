//go:build tools

// Package tools names the programs that go.mod is there for, so that `go mod tidy` keeps them.
package tools

import (
	_ "k8s.io/cri-api/pkg/apis/runtime/v1"
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
)
