// The modules whose charts and CRDs fill a rehearsal's artifacts directory.
// Each is downloaded by itself at exactly this version and nothing is built
// from them, so their versions need not agree with one another.
module llm-platform/rehearsal/toolchain/sources

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.21.1
	github.com/kserve/kserve v0.20.0
	istio.io/istio v0.0.0-20260827124520-eed52ebb66ad
	sigs.k8s.io/gateway-api v1.5.1
	sigs.k8s.io/gateway-api-inference-extension v1.5.0
	sigs.k8s.io/lws v0.8.0
)
