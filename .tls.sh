set -u
D=$(mktemp -d); B="/tmp/wt/core/.venv/bin/python -m blobflow"; cd $D
make="openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365"
for a in ca other; do $make -subj "/CN=$a" -addext keyUsage=critical,keyCertSign -keyout $a.key -out $a.crt 2>/dev/null; done
for name in one; do $make -subj "/CN=$name" -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth,clientAuth -keyout one.key -out one.crt 2>/dev/null
$make -subj "/CN=$name" -CA other.crt -CAkey other.key -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth,clientAuth -keyout bad.key -out bad.crt 2>/dev/null; done
ls
/tmp/wt/core/.venv/bin/dask scheduler --protocol tls --host 127.0.0.1 --port 18799 --no-dashboard --tls-ca-file ca.crt --tls-cert one.crt --tls-key one.key > sched.log 2>&1 & Q=$!
sleep 12
E=127.0.0.1:18799
echo "== wrong ca"; time $B copy 127.0.0.1:1/a:1 127.0.0.1:2/a:1 --engine tls://$E --engine-ca other.crt --engine-cert one.crt --engine-key one.key; echo rc $?
echo "== wrong cert"; $B copy 127.0.0.1:1/a:1 127.0.0.1:2/a:1 --engine tls://$E --engine-ca ca.crt --engine-cert bad.crt --engine-key bad.key; echo rc $?
echo "== no certs"; $B copy 127.0.0.1:1/a:1 127.0.0.1:2/a:1 --engine tls://$E; echo rc $?
echo "== plain to tls"; $B copy 127.0.0.1:1/a:1 127.0.0.1:2/a:1 --engine dask://$E; echo rc $?
echo "== cert missing"; $B copy 127.0.0.1:1/a:1 127.0.0.1:2/a:1 --engine tls://$E --engine-ca ca.crt --engine-cert nope.crt --engine-key bad.key; echo rc $?
echo "== key mismatch"; $B copy 127.0.0.1:1/a:1 127.0.0.1:2/a:1 --engine tls://$E --engine-ca ca.crt --engine-cert one.crt --engine-key bad.key; echo rc $?
echo "== worker wrong ca"; timeout 60 $B worker tls://$E --engine-ca other.crt --engine-cert one.crt --engine-key one.key; echo rc $?
echo "== worker nobody"; timeout 60 $B worker dask://127.0.0.1:1 --patience 2; echo rc $?
kill $Q
/tmp/wt/core/.venv/bin/dask scheduler --host 127.0.0.1 --port 18798 --no-dashboard > sched2.log 2>&1 & Q=$!
sleep 10
echo "== tls to plain"; $B copy 127.0.0.1:1/a:1 127.0.0.1:2/a:1 --engine tls://127.0.0.1:18798 --engine-ca ca.crt --engine-cert one.crt --engine-key one.key; echo rc $?
kill $Q
