import time
import pulumi_kubernetes as k8s
def test_t(contract):
    stack, ns = contract.stack(), contract.namespace()
    def program():
        o=contract.provider()
        for i in range(100):
            k8s.core.v1.ConfigMap(f"a{i}", metadata={"name":f"a{i}","namespace":ns}, data={"x":"1"}, opts=o)
    for op in ("preview","up","preview","refresh","destroy"):
        t=time.time(); r=getattr(stack,op)(*([program] if op in("up","preview") else [])); print(op, r.ok, round(time.time()-t,2))
