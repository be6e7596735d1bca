// The definitions that Google puts into a cluster of GKE 1.34 with its Gateway API on.
// Each module is downloaded by itself at exactly this version; nothing is built from them.
module llm-platform/rehearsal/toolchain/gke

go 1.26.0

require (
	github.com/GoogleCloudPlatform/gke-gateway-api v1.3.0
	sigs.k8s.io/gateway-api v1.4.0
)
