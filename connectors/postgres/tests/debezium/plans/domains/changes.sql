INSERT INTO t1 SELECT 3,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,aa,ab,ac,ad,ae,af,ag,ah,ai,aj,ak,al,am FROM t1 WHERE id = 1
INSERT INTO t1(id) VALUES (4)
UPDATE t1 SET e = 'nn', aj = 'z' WHERE id = 1
DELETE FROM t1
